"""A study in a workspace without training and without Ray, MLflow's server over it, and Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from marginlab.plan import SearchKey
from marginlab.tracking import Tracker, champion, connect, links
from tests.tracking.fakes import Place, new_packed, new_place
from tests.tracking.serving import free_port, serving

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --window-size=1600,1300"
# As with a mouse: for a finger, charts show their tools all the time, over the curves.
FLAGS += " --blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"
ARMS = {"ada/automargin": 0.02, "ada/fixed": 0.0}  # how much better each is made to look
SEEDS, TRIALS = 3, 4


@dataclass
class Site:
    """A study in MLflow, served."""

    url: str
    place: Place
    links: dict[str, str]  # what it shows -> URL
    runs: dict[str, str]  # run folder -> MLflow's id


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    connect(root / "empty")
    place = new_place(root / "workspace", root / "empty" / "mlflow.db")
    _pretend(place)
    report = place.study / "report"
    report.mkdir()
    (report / "report.html").write_text("<h1>The answer</h1>")
    (report / "headline.csv").write_text("arm,test/map\nada/automargin,0.7\n")
    tracker = Tracker(place.workspace, place.study)
    champion.register(tracker, {"oai": new_packed(root / "packed")})
    tracker.finish(report, "oai: ada/automargin matches ada/fixed.")
    port = free_port()
    (shown,) = links.known(place.workspace, port)
    with serving(*links.server(place.workspace, port), root, port) as url:
        runs = {folder: tracker.run_of(folder) for folder in tracker.folders()}
        yield Site(url, place, dict(shown.links), runs)


def _pretend(place: Place) -> None:
    """Trials of two arms that share no searched parameter but one, confirmations, a published default, an incumbent."""
    for arm, more in ARMS.items():
        for n in range(TRIALS):
            own = {"margin.k_delta": 1.0 + n} if "auto" in arm else {"margin.epsilon": 0.1 * (n + 1)}
            learned = 0.3 - 0.02 * n if "auto" in arm else 0.1 * (n + 1)
            fake = place.trial(n, arm=arm, **{"lr": 1e-4 * (n + 1)}, **own)
            fake.train(5, best=0.6 + 0.02 * n + more, **_curves("auto" in arm, learned))
            fake.recorder.finish("pruned" if n == 1 else "complete")
        for i in range(SEEDS):
            fake = place.confirmation(i, arm).train(5, best=0.65 + 0.01 * i + more, **_curves("auto" in arm, 0.3))
            fake.recorder.finish("complete", metrics={"test/map": 0.6 + 0.01 * i + more, "test/map_24m": 0.5})
    key = SearchKey("oai", "ada/fixed", 0)
    fake = place.fake(place.plan.defaults(key)[0]).train(5, best=0.61)
    fake.recorder.finish("complete", metrics={"test/map": 0.58})
    place.trial(TRIALS).train(1).recorder.finish("failed", "The loss was nan in epoch 1.")


def _curves(learns: bool, epsilon: float) -> dict[str, float | Callable[[int], float]]:
    """Figures over epochs; a margin that learns comes from 0.1, a fixed one stays."""
    margins: dict[str, float | Callable[[int], float]] = {"margin/epsilon": epsilon, "margin/beta": 0.05}
    if learns:
        margins = {
            "margin/epsilon": lambda epoch: 0.1 + (epsilon - 0.1) * epoch / 4,
            "margin/beta": lambda epoch: 0.2 - 0.1 * epsilon * epoch,
        }
    return {
        **margins,
        "val/cmc_1": lambda epoch: 0.5 + epoch / 20,
        "val/map_at_r": lambda epoch: 0.4 + epoch / 30,
        "train/sim_positive": lambda epoch: 0.5 + epoch / 10,
        "train/sim_negative": lambda epoch: 0.3 - epoch / 20,
    }


@dataclass
class Browser:
    """Chromium, driven."""

    driver: Any

    def open(self, url: str, name: str, ready: Callable[[str], object], seconds: float = 60) -> str:
        """Open a page, wait until its text is as it should be, take the screenshot ``name`` and return the text."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.wait import WebDriverWait

        self.driver.get("about:blank")  # pages differ behind the # alone: the browser would not load them anew
        self.driver.get(url)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        seen = [""]

        def settled(_: object) -> bool:
            seen.append(self.text())
            return bool(ready(seen[-1])) and seen[-1] == seen[-2] and not self.loading()

        try:
            WebDriverWait(self.driver, seconds, 1.0).until(settled)
        except TimeoutException:
            pytest.fail(f"{url} shows after {seconds:g} s:\n{seen[-1]}")
        finally:
            self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))
        return seen[-1]

    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def loading(self) -> int:
        """How many charts and lists are still being loaded."""
        signs = "[class*=spinner],[class*=skeleton],[role=progressbar]"
        return int(self.driver.execute_script(f"return document.querySelectorAll('{signs}').length"))

    def plotted(self) -> int:
        """How many runs the parallel coordinates hold: the rows that MLflow hands to the component that draws them."""
        script = """
            const at = document.querySelector('.parcoords'), key = Object.keys(at).find(k => k.startsWith('__reactFiber'));
            for (let f = at[key]; f; f = f.return)
                if (f.memoizedProps && f.memoizedProps.selectedMetrics && Array.isArray(f.memoizedProps.data))
                    return f.memoizedProps.data.length;
            return -1"""
        return int(self.driver.execute_script(script))

    def errors(self) -> list[str]:
        """What the pages complained of, but for the user's name, which a server without accounts does not know, and charts
        that were measured or resized while they were drawn."""
        log = [str(entry["message"]) for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [
            message
            for message in log
            if not re.search(r"/users/current|favicon|ResizeObserver|attribute transform", message)
        ]


@pytest.fixture(scope="session")
def browser(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    where = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in where.items() if path is None]:
        pytest.fail(
            f"There is no {' and no '.join(missing)} on the PATH: on Debian, apt-get install chromium chromium-driver."
        )
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.binary_location = str(where["chromium"])
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(where["chromedriver"])))
    try:
        driver.get(f"{site.url}/health")
        # An assistant that opens itself on the first visit hides a third of every page.
        driver.execute_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
        yield Browser(driver)
    finally:
        driver.quit()
