"""Exercises for a course, and the checker that says what is wrong with a solution, and why.

`cr3 check` is its command; a teacher's own script uses the same functions:

>>> from lab.exercises import exercises
>>> [exercise.label for exercise in exercises()][:2]
['01_address', '02_page_walk']

An exercise of your own is one file in this folder: see `exercise.py`.
"""

from .exercise import Exercise, Finding, Solution, Verdict, Wrong, exercises, find_exercise
from .solution import check, check_here, read_solution

__all__ = [
    "Exercise",
    "Finding",
    "Solution",
    "Verdict",
    "Wrong",
    "check",
    "check_here",
    "exercises",
    "find_exercise",
    "read_solution",
]
