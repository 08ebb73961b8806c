from __future__ import annotations

from marginlab.report.latex import escape, measured, table, write_latex
from marginlab.results import Results
from tests.report.synthetic import Synthetic, study


def test_every_special_character_is_escaped():
    assert escape(r"a_b & 50% of $1 {x} #2 ~^ \input") == (
        r"a\_b \& 50\% of \$1 \{x\} \#2 \textasciitilde{}\textasciicircum{} \textbackslash{}input"
    )


def test_a_table_by_hand():
    made = table(["arm", "all"], [("oai", [["a", "1"]])], "50% of it", "x-y", ["careful"])
    assert made == (
        "\\begin{table}\n\\centering\n\\caption{50\\% of it}\n\\label{tab:x-y}\n\\begin{tabular}{lr}\n\\toprule\n"
        "arm & all \\\\\n\\midrule\n\\multicolumn{2}{l}{\\emph{oai}} \\\\\na & 1 \\\\\n\\bottomrule\n\\end{tabular}\n"
        "\\par\\footnotesize careful\n\\end{table}\n"
    )
    assert measured(0.92, 0.0115) == r"\(0.920 \pm 0.011\)" and measured(None, None) == "--"


def test_the_files_and_their_figures(results, tmp_path):
    written = {p.name: p.read_text() for p in write_latex(results, tmp_path)}
    metrics = ["map", "map_at_r", "cmc_1", "cmc_allshots_1"]
    assert set(written) == {"answer.tex", "searches.tex"} | {
        f"{d}-{m}.tex" for d in ("oai", "knees") for m in metrics
    } | {f"oai-published-{m}.tex" for m in ("map", "map-r", "cmc-top-1")}
    assert r"automargin & \(0.920 \pm 0.012\) & \(0.900 \pm 0.012\) & \(0.870 \pm 0.012\) \\" in written["oai-map.tex"]
    assert (
        r"AdaTriplet & " in written["oai-published-map.tex"] and r"\(96.9 \pm 0.1\)" in written["oai-published-map.tex"]
    )
    assert r"automargin (allshots) & " in written["oai-published-cmc-top-1.tex"]
    assert "oai & " in written["answer.tex"] and r"margin.k\_delta = 4" in written["searches.tex"]
    for name, text in written.items():
        columns = text.partition(r"\begin{tabular}{")[2].partition("}")[0]
        rows = [line for line in text.splitlines() if line.endswith(r"\\") and not line.startswith(r"\multicolumn")]
        assert all(row.count(" & ") == len(columns) - 1 for row in rows), name
        assert "phantoms" in text or name.startswith("oai"), name  # whatever shows the synthetic dataset says so


def test_a_hostile_name_stays_text_and_a_study_that_has_only_begun_has_its_searches(tmp_path):
    Synthetic(tmp_path, study(name="a_b"))
    written = write_latex(Results.open(tmp_path), tmp_path / "report")
    assert [p.name for p in written] == ["answer.tex", "searches.tex"]
