"""Pages of trends in a browser: every chart is drawn, nothing is asked of a network, and axe finds nothing serious."""

import json

import torch
from report.visit import Visit, chromium, violations

import statesize as ss
from statesize.lab.mixers import LanguageModel, ModelConfig, save_checkpoint

SHAPE = ModelConfig(mixer="gla", vocabulary_size=64, width=8, heads=2, layers=2, key_size=4)


def silent(*_):
    """No bar."""


def test_pages_draw_their_charts(tmp_path):
    for step in (0, 10, 20):
        save_checkpoint(LanguageModel(SHAPE, torch.Generator().manual_seed(step)), tmp_path / f"step-{step}")
    rows = [json.dumps({"step": step, "loss": 4 - step / 10}) for step in range(20)]
    (tmp_path / "log.jsonl").write_text("\n".join(rows), encoding="utf-8")
    text = torch.randint(2, 64, (3, 40), generator=torch.Generator().manual_seed(0))
    found = ss.lab.series(tmp_path, text, on_progress=silent)
    model = LanguageModel(SHAPE, torch.Generator().manual_seed(0)).eval()
    growth = ss.lab.length(
        model, text, lengths=[4, 8, 16], trained_length=8, settings=ss.Settings(future=6), on_progress=silent
    )
    with chromium() as browser:
        for page, charts in (
            (found.to_html(tmp_path / "series.html"), 3),
            (growth.to_html(tmp_path / "length.html"), 1),
        ):
            visit = Visit(browser, page)
            assert visit.page.locator("figure svg").count() == charts
            assert visit.page.locator("figure svg path").count() > 5
            assert visit.requests == [page.as_uri()]
            assert visit.complaints == []
            assert violations(visit.page) == []
            visit.context.close()
