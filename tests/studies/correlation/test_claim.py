"""The claim holds where it was built in, does not where it was not, and controls are told apart."""

import numpy as np
import pytest

from statesize.studies.correlation.claim import best_rates, correlation
from statesize.studies.page.conclusion import known
from statesize.studies.page.final import final_runs

METRIC = "relative_0.01"


def table(accuracy_of, tasks=("mqar",), seed=0):
    """Rows as a study has them: ESS at the end between 0.4 n and n, ESS at the start independent of it."""
    generator, rows = np.random.default_rng(seed), []
    for task in tasks:
        for mixer in ("la", "gla", "wla"):
            for size in (4, 8, 16):
                for kv in (6, 12, 24):
                    for rate in (1e-3, 1e-2):
                        share, first = generator.uniform(0.4, 1, size=2)
                        noise = 0.02 * generator.normal()
                        accuracy = float(np.clip(accuracy_of(share, first, size, kv) + noise, 0, 1))
                        common = {
                            **{"run": str(len(rows)), "status": "done", "message": "", "task": task, "kv": kv},
                            **{"length": 64, "chance": 1 / kv, "mixer": mixer, "key_size": size, "heads": 2},
                            **{"width": 32, "rate": rate, "seed": 0, "intervention": "none"},
                            "state_size": float(size),
                        }
                        for step, part in ((0, first), (600, share)):
                            ess = {METRIC: part * size, "entropy": 0.9 * part * size}
                            shares = {f"utilisation_{name}": value / size for name, value in ess.items()}
                            end = {"step": step, "final": step > 0, "accuracy": accuracy if step else 1 / kv}
                            rows.append(common | ess | shares | end)
    return rows


def by_ess(share, first, size, kv):
    return 0.3 * share * size / kv


def test_the_claim_holds_where_accuracy_goes_with_ess():
    found = correlation(table(by_ess), METRIC)
    assert found.holds is True
    assert found.verdict.endswith("It holds here.")
    assert found.figures["mqar_inside_cells"] > 0.8
    assert found.figures["control_mqar_initial_inside_cells"] < 0.4
    low, high = found.figures["mqar_pearson_difference_interval"]
    assert 0 < low < found.figures["mqar_pearson_difference"] < high
    text = "\n".join(found.lines())
    assert "geometry" in text
    assert "plateau" in text
    assert "ESS at initialisation" in text


def test_it_does_not_where_accuracy_goes_with_tss_or_with_the_start():
    by_tss = correlation(table(lambda share, first, size, kv: 0.3 * size / kv), METRIC)
    assert by_tss.holds is False
    start = correlation(table(lambda share, first, size, kv: 0.3 * first * size / kv), METRIC)
    assert start.holds is False
    assert start.figures["control_mqar_initial_inside_cells"] > 0.8


def test_a_second_task_is_told_the_same_way_and_pooled():
    found = correlation(table(by_ess, ("mqar", "compression")), METRIC)
    for name in ("mqar", "compression", "pooled", "mqar_best_rate", "pooled_off_plateau_entropy"):
        assert f"{name}_pearson_ess" in found.figures
        assert f"control_{name}_initial_inside_cells" in found.figures
    assert found.figures["pooled_runs"] == 2 * found.figures["mqar_runs"] == 108


def test_diverged_runs_are_counted_and_left_out():
    rows = table(by_ess)
    rows[1] |= {"status": "diverged", "accuracy": float("nan"), METRIC: float("nan")}
    found = correlation(rows, METRIC)
    assert (found.figures["diverged"], found.figures["mqar_runs"]) == (1, 53)
    assert any("1 runs diverged" in line for line in found.statements)


def test_where_nothing_was_learned_it_cannot_tell():
    found = correlation(table(lambda share, first, size, kv: 1 / kv - 0.05), METRIC)
    assert found.holds in {None, False}
    assert known(found.figures)["mqar_off_plateau_inside_cells"] is None


def test_best_rates():
    runs = final_runs(table(by_ess))
    best = best_rates(runs)
    assert len(best) == len(runs) // 2
    for run in best:
        assert run.accuracy == max(other.accuracy for other in runs if other.configuration == run.configuration)


@pytest.mark.parametrize("part", ["", "best_rate_", "off_plateau_"])
def test_figures_are_there_with_and_without_the_plateau(part):
    figures = correlation(table(by_ess), METRIC).figures
    assert {f"mqar_{part}{name}" for name in ("pearson_tss", "spearman_tss", "inside_cells_interval")} <= figures.keys()
