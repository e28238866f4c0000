"""Reports: a run, or several side by side, as one HTML page to explore.

recorder.py, snapshot.py, page_states.py   look at a running machine, a bounded number of times
recording.py                               what changed between two looks
faults.py                                  page faults by source line
document.py                                all of it, typed
page.py, templates/                        the page
"""

from __future__ import annotations

from .document import Observation, Report, Run
from .page import render

__all__ = ["Observation", "Report", "Run", "render"]
