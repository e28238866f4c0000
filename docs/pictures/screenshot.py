"""Take the picture of a report that the manual shows: python docs/pictures/screenshot.py (needs Chromium)."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from pathlib import Path

from selenium import webdriver

from lab.options import Options
from lab.report import Observation, Report, render
from lab.session import Session

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PROGRAM = "programs/copy_on_write.asm"
SIZE = (1180, 1120)


def report() -> str:
    """The page of the program, with isolation."""
    session = Session(Options(programs=(PROGRAM,), pti=True), stdout=(printed := io.BytesIO()))
    observation = Observation(session)
    run = observation.finish(session.run(), "", printed.getvalue())
    return render(Report.of(session.options.programs, [run]))


def main() -> None:
    """Open the report, go to the middle of the run, and keep what is on the screen."""
    os.chdir(ROOT)  # the picture shall show the name of the program, and not where it lies
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text(report())
        width, height = SIZE
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(page.as_uri())
        driver.execute_script(
            "const moments = DATA.runs[0].recording.moments, slider = document.getElementById('moment');"
            "slider.value = moments.findLastIndex((moment) => moment.what.includes('copy on write')) - 24;"
            "slider.dispatchEvent(new Event('input'));"
            "document.documentElement.style.scrollBehavior = 'auto';"
            "document.getElementById('memory').scrollIntoView();"
        )
        driver.save_screenshot(str(HERE / "report.png"))
    driver.quit()


if __name__ == "__main__":
    main()
