"""The map of the course: which notebook, exercise and quiz question serves which of the five learning objectives.

`LESSONS` holds the notebooks with their exercises, `QUIZ` the questions of `nb_quiz`; tests/site/test_objectives.py
compares both with the notebooks. In a notebook `objectives.table()` shows the map.
"""

from dataclasses import dataclass

from course_lib.viz import tables

OBJECTIVES = {
    "LO1": "Understand the differences between implicit and explicit likelihood generative models.",
    "LO2": "Understand the intuition and theory behind diffusion models.",
    "LO3": "Appreciate and learn different applications of diffusion models in medical image analysis.",
    "LO4": "Appreciate the current limitations of diffusion models.",
    "LO5": "Learn to train and use diffusion models with MONAI's generative modules.",
}


@dataclass(frozen=True)
class Lesson:
    """A notebook. `exercises`: for each objective that it claims, the exercises that test it first of all ("q1 q3")."""

    title: str
    exercises: dict


@dataclass(frozen=True)
class Question:
    """A quiz question: the objective it tests, and the notebook and sections in which it is answered."""

    objective: str
    notebook: str
    sections: tuple

    @property
    def where(self):
        """For example "notebook 12, sections 1, 2 and 5"."""
        *first, last = map(str, self.sections)
        numbers = f"sections {', '.join(first)} and {last}" if first else f"section {last}"
        return f"notebook {self.notebook}, {numbers}"


LESSONS = {
    "00": Lesson("Start here", {"LO2": "q1 q3", "LO5": "q2"}),
    "01": Lesson("Generative models", {"LO1": "q1 q3 q4 q5", "LO4": "q2 q6"}),
    "02": Lesson("Diffusion theory", {"LO1": "q4 q6", "LO2": "q1 q2 q3 q5"}),
    "03": Lesson("DDPM", {"LO2": "q1 q2 q3 q4 q5", "LO4": "", "LO5": "q6"}),
    "04": Lesson("Schedulers and fast sampling", {"LO2": "q1 q2 q3 q4", "LO5": "q5 q6"}),
    "05": Lesson("Guidance", {"LO2": "q1 q2", "LO4": "q4 q5 q6", "LO5": "q3"}),
    "06": Lesson("Conditioning", {"LO2": "q1 q2 q3", "LO3": "q4", "LO4": "q5", "LO5": "q6"}),
    "07": Lesson("Latent and 3-D diffusion", {"LO2": "q1 q2", "LO3": "q6", "LO4": "", "LO5": "q3 q4 q5"}),
    "08": Lesson("Synthesis and how to judge it", {"LO3": "q1 q3 q4", "LO4": "q2 q5 q6"}),
    "09": Lesson("Reconstruction", {"LO2": "q3", "LO3": "q1 q2", "LO4": "q4 q5"}),
    "10": Lesson("Segmentation", {"LO2": "", "LO3": "q1 q2 q3 q5", "LO4": "q4 q6"}),
    "11": Lesson("Anomaly detection", {"LO3": "q1 q2", "LO4": "q3 q4 q5 q6"}),
    "12": Lesson("More applications", {"LO2": "q1 q2 q3", "LO3": "q4 q5", "LO4": "q6"}),
    "13": Lesson("Trends", {"LO2": "q1 q2", "LO4": "q3 q4", "LO5": "q5 q6"}),
    "14": Lesson("Open challenges", {"LO4": "q1 q2 q3 q4 q5 q6 q7 q8"}),
}

QUIZ = {
    "q1": Question("LO1", "01", (8,)),
    "q2": Question("LO1", "01", (4, 7)),
    "q3": Question("LO1", "02", (4,)),
    "q4": Question("LO2", "02", (2,)),
    "q5": Question("LO2", "04", (3,)),
    "q6": Question("LO2", "10", (4,)),
    "q7": Question("LO3", "06", (1,)),
    "q8": Question("LO3", "09", (3,)),
    "q9": Question("LO3", "10", (2,)),
    "q10": Question("LO3", "12", (1, 2, 3, 5)),
    "q11": Question("LO4", "03", (3,)),
    "q12": Question("LO4", "05", (4,)),
    "q13": Question("LO4", "07", (2,)),
    "q14": Question("LO4", "11", (11,)),
    "q15": Question("LO5", "07", (4,)),
    "q16": Question("LO5", "06", (7,)),
    "q17": Question("LO5", "04", (6,)),
    "q18": Question("LO5", "04", (6,)),
}


def notebooks(objective):
    """{number of each notebook that claims the objective: its exercises for it, perhaps none}."""
    return {
        number: lesson.exercises[objective].split()
        for number, lesson in LESSONS.items()
        if objective in lesson.exercises
    }


def questions(objective):
    """Names of the quiz questions for an objective."""
    return [name for name, question in QUIZ.items() if question.objective == objective]


def table():
    """The map as a table: a line for each objective, with its notebooks, their exercises and the quiz questions."""
    rows = {
        name: {"in words": text, "notebooks and their exercises": _exercises(name), "quiz": ", ".join(questions(name))}
        for name, text in OBJECTIVES.items()
    }
    return tables.table(rows, caption="Objectives, notebooks and exercises, quiz", corner="objective")


def _exercises(objective):
    return "; ".join(f"{number}: {', '.join(names) or 'text'}" for number, names in notebooks(objective).items())
