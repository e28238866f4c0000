"""Reports: a run, or several side by side, as one HTML page to explore.

- `recorder.py` and `snapshot.py` look at a running machine, a bounded number of times,
- `recording.py` keeps what changed between two looks, `faults.py` counts page faults by source line,
- `document.py` is all of it, typed; `page.py` and `templates/` make the page of it.
"""

from __future__ import annotations

from .document import Observation, Report, Run
from .page import render

__all__ = ["Observation", "Report", "Run", "render"]
