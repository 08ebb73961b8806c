"""The command line: help that shows real calls, and bad input that ends in a sentence, exit code 2 and nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from marginlab.cli import main
from marginlab.data.table import Table
from marginlab.study import Dataset
from marginlab.workspace import Workspace

ROOT = Path(__file__).parents[1]
COMMANDS = [
    "phantom",
    "prepare",
    "verify",
    "plan",
    "run",
    "status",
    "compare",
    "export",
    "replay",
    "submit",
    "logs",
    "stop",
    "resume",
    "sync",
    "ui",
    "embed",
    "match",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def call(*argv: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(argv))
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small phantom's raw folder, made through the command line."""
    folder = tmp_path_factory.mktemp("raw") / "oai"
    assert call("phantom", "oai", "--out", str(folder), "--subjects", "12", "--size", "36") == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_a_real_call(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    assert f"Example: marginlab {command}" in " ".join(capsys.readouterr().out.split())


def test_phantom_then_prepare_then_the_next_step(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("prepare", "oai", str(raw), "--size", "36") == 0
    out = capsys.readouterr().out
    assert "train:" in out and "fingerprint" in out and "Next: " in out
    packed = list(Path("workspace/data").glob("oai-*"))
    assert len(packed) == 1 and (packed[0] / "manifest.parquet").exists()
    assert '"phantom": "OaiPhantom v1"' in (packed[0] / "dataset.json").read_text()  # though it came as a raw folder
    assert call("prepare", "oai", str(raw), "--size", "36") == 0  # again: it is there already


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert call(*argv) == 2
    seen = capsys.readouterr()
    assert "Traceback" not in seen.err + seen.out
    return " ".join(seen.err.split())


def test_what_is_not_there_is_named(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "marginlab: nowhere: this raw folder does not exist" in fails(capsys, "prepare", "oai", "nowhere")
    assert "There is no reader 'oia'" in fails(capsys, "prepare", "oia", str(raw))
    assert "There is no phantom 'eye'; there are oai, cxr14" in fails(capsys, "phantom", "eye", "--out", "x")
    assert "exists: name a new folder" in fails(capsys, "phantom", "oai", "--out", str(raw))
    assert "no delivery 'sas7bdat'" in fails(capsys, "phantom", "oai", "--out", "x", "--delivery", "sas7bdat")
    assert "no study file nothing.py" in fails(capsys, "run", "nothing.py")
    assert "No study has begun in" in fails(capsys, "status")
    assert "No study has begun in" in fails(capsys, "compare", "some-study")
    assert "has no mlflow.db yet" in fails(capsys, "ui")
    assert {p.name for p in Path("workspace").glob("*")} <= {".locks"}


def test_a_damaged_delivery_is_refused_and_nothing_is_left(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(raw, copy)
    images = sorted((copy / "ResizedImages").iterdir())
    for image in images[:3]:
        image.write_bytes(image.read_bytes()[:40])
    said = fails(capsys, "prepare", "oai", str(copy), "--size", "36")
    assert "cannot be read, more than the limit of 1.00%" in said and images[0].name in said
    assert not list(Path("workspace/data").glob("*/dataset.json"))
    assert call("prepare", "oai", str(copy), "--size", "36", "--unreadable", "0.1") == 0
    report = next(Path("workspace/data").glob("oai-*/report.json")).read_text()
    assert report.count('"reason"') == 3 and images[0].name not in report
    shutil.rmtree("workspace")
    next(p for p in copy.iterdir() if "enrollees" in p.name.lower()).unlink()
    assert "enrollees" in fails(capsys, "prepare", "oai", str(copy), "--size", "36")


def own_table(images: int) -> None:
    """Test subjects from the tenth on."""
    Path("my images").mkdir(exist_ok=True)
    lines = ["path,subject,months,split"]
    for i in range(images):
        Image.new("L", (20, 20), 10 * i).save(f"my images/{i}.png")
        lines.append(f"{i}.png,p{i // 2},{12 * (i % 2)},{'test' if i >= 18 else 'train'}")
    Path("my images/knees.csv").write_text("\n".join(lines))


def test_prepare_reads_a_table_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    own_table(24)
    assert call("prepare", "table", "my images/knees.csv", "--size", "16") == 0
    out = " ".join(capsys.readouterr().out.split())
    declared = "Dataset('knees', root='my images', size=16, reader=Table('knees.csv'))"
    assert "train: 18 images, 9 subjects" in out and f"use {declared} in a study file" in out
    found = Workspace.at("workspace").packed(Dataset("knees", root="my images", size=16, reader=Table("knees.csv")))
    assert (found / "manifest.parquet").exists()  # where the study of that sentence looks for it
    assert "There is no table" in fails(capsys, "prepare", "table", "my images/none.csv")
    assert "--name and --colour are for a table" in fails(capsys, "prepare", "oai", "my images", "--colour")


def test_prepare_leaves_a_page_and_on_request_a_contact_sheet(capsys: pytest.CaptureFixture[str]) -> None:
    own_table(24)
    argv = ("prepare", "table", "my images/knees.csv", "--size", "16", "--workers", "1")
    assert call(*argv) == 0
    (page,) = Path("workspace/data").glob("knees-*/report.html")
    assert "what was left out: " in capsys.readouterr().out and "<img" not in page.read_text()
    page.unlink()  # as in a dataset of an earlier version, which has none
    sheet = page.with_name("contact-sheet.html")
    assert not sheet.exists() and call(*argv, "--contact-sheet") == 0
    assert page.exists() and sheet.read_text().count("<img") == 12 and "contact sheet: " in capsys.readouterr().out


def test_images_are_added_and_the_dataset_verified(capsys: pytest.CaptureFixture[str]) -> None:
    own_table(24)
    argv = ("prepare", "table", "my images/knees.csv", "--size", "16", "--workers", "1")
    assert call(*argv) == 0
    own_table(26)
    capsys.readouterr()
    assert call(*argv) == 0
    assert "If the raw folder has more images now, --extend adds them;" in " ".join(capsys.readouterr().out.split())
    assert call(*argv, "--extend") == 0
    out = capsys.readouterr().out
    assert "test: 8 images, 4 subjects" in out and "It was there already" not in out
    (folder,) = Path("workspace/data").glob("knees-*")
    assert call("verify", str(folder)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "As it was prepared: images, table and fingerprint; no subject is in two splits" in out and "Next: " in out
    assert "Look at this: 26 images are of a single colour (rows 0, 1, 2, 3, 4, ...)" in out
    with (folder / "images.npy").open("r+b") as file:
        file.seek(-10, 2)
        file.write(b"damage")
    assert "the pixels of rows 0 to 25 are not those that were prepared" in fails(capsys, "verify", str(folder))
    assert "--workers is for this machine alone" in fails(capsys, *argv, "--address", "head:6379")


def test_a_split_that_leaks_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--subjects", "25", "--size", "32", "--delivery", "flat", "--delivery", "png")
    assert call("phantom", "eyepacs", "--out", "raw", *small) == 0
    assert len(list(Path("raw").glob("*_left.png"))) == 25
    capsys.readouterr()
    assert call("prepare", "eyepacs-by-image", "raw", "--size", "16", "--label", "grade") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "The test split leaks: " in out and "another image of the same subject is there" in out
    (folder,) = Path("workspace/data").glob("eyepacs-by-image-*")
    leak = json.loads((folder / "dataset.json").read_text())["leak"]
    assert leak["sentence"] in out and leak["test_images"] == 10 and 0 < leak["subjects"] <= leak["test_subjects"]
    assert call("verify", str(folder)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert leak["sentence"] in out and "As it was prepared" in out and "no subject is in two" not in out


STUDY = """
from marginlab.augment import Augment
from marginlab.study import *
from marginlab.training import Training
study = Study("mine", [Dataset("oai", root=ROOT, size=36)], [Arm("a", Training(augment=Augment(crop=32), batch_size=96))], Search(8, 4, resources=Resources(workers=WORKERS)))
"""


def test_plan_lays_out_and_refuses(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Path("mine.py")
    study.write_text(STUDY.replace("ROOT", repr(str(raw))).replace("WORKERS", "1"))
    assert call("plan", "mine.py", "--cpus", "2") == 0
    out = capsys.readouterr().out
    assert "1 searches of 8 epochs" in out and "25 runs of 4 epochs" in out and "marginlab run mine.py" in out
    study.write_text(STUDY.replace("ROOT", repr(str(raw))).replace("WORKERS", "3"))
    assert "Search needs 3 CPUs for one run (3 workers), and there are 2" in fails(
        capsys, "plan", "mine.py", "--cpus", "2"
    )
    study.write_text(STUDY.replace("ROOT", "'not-there'").replace("WORKERS", "1"))
    assert call("plan", "mine.py", "--cpus", "2") == 0  # before the images are there: for as many as the real set has
    out = " ".join(capsys.readouterr().out.split())
    assert "25600 images train, 6400 validate, 8000 test, as published" in out and "missing here not-there" in out
    study.write_text(STUDY.replace("Search(8", "Search(epochs=8"))
    assert "mine.py, line 5" in fails(capsys, "plan", "mine.py")
    assert not Path("workspace").exists()
    study.write_text(STUDY.replace("ROOT", "'not-there'").replace("WORKERS", "1"))
    assert "Dataset 'oai': there is no folder not-there" in fails(capsys, "run", "mine.py")


def test_the_phantom_form_of_a_study_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    text = STUDY.replace("root=ROOT", "phantom=OaiPhantom(12, size=36)").replace("WORKERS", "1")
    Path("mine.py").write_text("from marginlab.data.phantom import OaiPhantom\n" + text)
    said = fails(capsys, "plan", "mine.py", "--phantom", "--cpus", "2")
    assert "mine.py defines no Study called 'phantom'; those it defines: study" in said
    Path("mine.py").write_text(Path("mine.py").read_text().replace("study = ", "phantom = "))
    assert call("plan", "mine.py", "--phantom", "--cpus", "2") == 0
    assert "Next: marginlab run mine.py:phantom" in " ".join(capsys.readouterr().out.split())
    assert "give one of the two" in fails(capsys, "run", "mine.py:study", "--phantom")


def test_a_tracking_server_that_is_not_there_is_said_before_anything_is_trained(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(STUDY.replace("ROOT", repr(str(raw))).replace("WORKERS", "1"))
    said = fails(capsys, "run", "mine.py", "--tracking-uri", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in said
    assert not list(Path("workspace").glob("studies/*/runs/**/run.json"))


def test_a_study_of_relative_paths_is_not_submitted(capsys: pytest.CaptureFixture[str]) -> None:
    """A job begins in another folder, and images are not sent."""
    study = Path(__file__).parents[1] / "studies" / "automargin_vs_fixed.py"
    with pytest.raises(SystemExit) as end:
        main(["submit", str(study), "--address", "http://127.0.0.1:9", "--workspace", "/mnt/w"])
    said = " ".join(capsys.readouterr().err.split())
    assert end.value.code == 2 and "data/oai, is relative" in said and "Give the absolute path" in said


def test_the_demo_study_is_laid_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("plan", str(ROOT / "studies" / "demo.py"), "--cpus", "2") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "6 searches of 32 epochs" in out and "18 runs of 6 epochs" in out and "epochs in all 300" in out
    assert "time about" in out and "from two measured batches per arm" in out and "p is 0.25 at best" in out


def test_another_declaration_is_recorded_and_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.report.synthetic import Synthetic, study

    Synthetic(tmp_path / "w" / "studies" / "demo").whole()
    file = tmp_path / "again.py"
    file.write_text(
        "from marginlab.study import Comparison\nfrom tests.report.synthetic import study as whole\n"
        "study = whole(comparison=Comparison(contrast=('automargin', 'fixed'), margin=0.05))\n"
    )
    argv = ("compare", "demo", "--workspace", str(tmp_path / "w"), "--redeclare", str(file))
    assert call(*argv) == 0
    seen = " ".join(capsys.readouterr().out.split())
    assert "Declared anew; the report tells of it." in seen and "matches fixed" in seen
    (change,) = json.loads((tmp_path / "w" / "studies" / "demo" / "study.json").read_text())["redeclared"]
    assert (change["before"]["margin"], change["after"]["margin"], change["test_opened"]) == (0.01, 0.05, True)
    assert study().comparison.margin == 0.01
    file.write_text(file.read_text().replace("whole(", "whole(seed=5, "))
    assert "seed: was 0, is 5" in fails(capsys, *argv)
