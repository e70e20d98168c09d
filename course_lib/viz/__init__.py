"""What the learner sees.

`figures`: pure functions from data to a Figure. `planes`: volumes in three planes. `tables`: numbers as one accessible
table. `widgets`: sliders and predictions. `progress`: a line while a cell runs. `listing`: code beside its formula.
`html`: HTML with a text twin. `arrays`: what all of them take. Import the part that is needed: `from course_lib.viz
import figures, tables`. Nothing here trains, loads or knows a network.
"""
