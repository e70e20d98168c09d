"""What the learner sees.

`figures`: pure functions from data to a Figure. `widgets`: sliders and predictions. `page`: HTML with a text twin.
Import the part that is needed: `from course_lib.viz import figures, widgets`. Nothing here trains, loads or knows a
network.
"""
