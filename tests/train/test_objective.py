"""Losses against their formulas, and what a student learns from a teacher."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from snnpipe.errors import RequestError
from snnpipe.export.lift import Setting, lift
from snnpipe.network.trace import Witness
from snnpipe.train.build import build
from snnpipe.train.checkpoint import load_run
from snnpipe.train.coding import seen
from snnpipe.train.evaluate import outputs
from snnpipe.train.examples import Batch
from snnpipe.train.objective import Objective, Told, distilled
from snnpipe.train.protocol import Part
from snnpipe.train.recipe import LossPart
from snnpipe.train.recipe_file import parse_recipe
from snnpipe.train.run import train_run
from snnpipe.train.teacher import Teacher
from torch import nn

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = torch.tensor([2, 0, 1, 2, 2])


def _outputs(n: int = 4) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, 5, 3, dtype=torch.float64, generator=draw) * 2


def _batch(targets: torch.Tensor = LABELS) -> Batch:
    return Batch(torch.zeros(5, 1), LABELS, targets)


def _loss(settings: LossPart, outputs: torch.Tensor, share: float = 1.0, **rest) -> float:
    batch = rest.pop("batch", _batch())
    return float(Told(settings, batch, **rest)(Part(outputs, share)))


def _entropy(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Mean of -sum_k target_k log p_k; targets (B, K)."""
    scores = outputs.exp() / outputs.exp().sum(-1, keepdim=True)
    return float(-(targets * scores.log()).sum(-1).mean())


def _near(value: float):
    return pytest.approx(value, rel=1e-12)


def test_cross_entropy_of_the_mean_output():
    outputs = _outputs()
    one_hot = F.one_hot(LABELS, 3).double()
    assert _loss(LossPart(), outputs) == _near(_entropy(outputs.mean(0), one_hot))
    smooth = 0.7 * one_hot + 0.3 / 3
    found = _loss(LossPart(label_smoothing=0.3), outputs)
    assert found == _near(_entropy(outputs.mean(0), smooth))


def test_cross_entropy_of_every_step():
    outputs = _outputs()
    one_hot = F.one_hot(LABELS, 3).double()
    steps = [_entropy(output, one_hot) for output in outputs]
    assert _loss(LossPart(form="per_step"), outputs) == _near(sum(steps) / 4)
    assert _loss(LossPart(form="per_step"), outputs[1:2], 0.25) == _near(steps[1] / 4)
    assert _loss(LossPart(), outputs) != _near(sum(steps) / 4)


def test_shares_of_classes_are_targets():
    outputs, shares = _outputs(), torch.rand(5, 3, dtype=torch.float64)
    shares /= shares.sum(1, keepdim=True)
    for form in ("mean_output", "per_step"):
        seen_by = outputs.mean(0)[None] if form == "mean_output" else outputs
        expected = sum(_entropy(output, shares) for output in seen_by) / len(seen_by)
        assert _loss(LossPart(form=form), outputs, batch=_batch(shares)) == _near(expected)


def test_tet_holds_outputs_to_a_constant():
    outputs, one_hot = _outputs(), F.one_hot(LABELS, 3).double()
    entropy = sum(_entropy(output, one_hot) for output in outputs) / 4
    square = float(((outputs - 0.8) ** 2).mean())
    found = _loss(LossPart(form="per_step", mse=0.05, mse_target=0.8), outputs)
    assert found == _near(0.95 * entropy + 0.05 * square)


@pytest.mark.parametrize("taught", [False, True])
def test_parts_add_up(taught):
    settings = LossPart(form="per_step", mse=0.1, label_smoothing=0.2, temperature=3.0)
    rest = {"taught": torch.randn(5, 3, dtype=torch.float64)} if taught else {}
    outputs = _outputs(6)
    whole = _loss(settings, outputs, **rest)
    pieces = [_loss(settings, outputs[at : at + 2], 1 / 3, **rest) for at in (0, 2, 4)]
    assert sum(pieces) == _near(whole)


def test_distillation():
    outputs, taught = _outputs(1), torch.randn(5, 3, dtype=torch.float64)
    tau, share = 2.5, 0.3
    theirs, ours = ((x / tau).softmax(-1) for x in (taught, outputs[0]))
    divergence = float((theirs * (theirs / ours).log()).sum(-1).mean())
    assert float(distilled(outputs, taught, tau)) == _near(tau**2 * divergence)
    settings = LossPart(teacher="x", teacher_share=share, temperature=tau)
    entropy = _entropy(outputs[0], F.one_hot(LABELS, 3).double())
    expected = (1 - share) * entropy + share * tau**2 * divergence
    assert _loss(settings, outputs, taught=taught) == _near(expected)
    same = taught[None].clone().requires_grad_()
    loss = distilled(same, taught, tau)
    loss.backward()
    assert abs(loss.item()) < 1e-12
    assert float(same.grad.abs().max()) < 1e-12


def test_a_squared_error_needs_single_steps():
    recipe = parse_recipe('[data]\nname = "digits"\n[loss]\nmse = 0.05\n', "test")
    with pytest.raises(RequestError, match=r"loss.mse is 0.05 with loss.form = mean_output"):
        Objective.of(recipe, nn.Linear(2, 2))


DIGITS = """
[data]
name = "digits"
[model]
channels = [6, 8]
strides = [2, 1]
[neuron]
name = "{neuron}"
[loss]
teacher = "{teacher}"
{share}[train]
steps = {steps}
epochs = {epochs}
[witness]
samples = 5
"""


def digits(neuron, teacher, steps, epochs):
    share = "teacher_share = 0.6\n" if teacher else ""
    return DIGITS.format(neuron=neuron, teacher=teacher, share=share, steps=steps, epochs=epochs)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "teacher"
    text = digits(neuron="relu", teacher="", steps=1, epochs=4)
    facts = train_run(parse_recipe(text, "test"), None, out)
    torch.set_num_threads(before)
    return out, facts


def test_the_ann_of_the_same_topology_is_a_run(teacher):
    out, facts = teacher
    assert facts["test"]["last"]["accuracy"] > 0.9
    model, recipe = load_run(out)
    assert [name for name, _ in model.named_children()][:3] == ["conv1", "bn1", "relu1"]
    witness = Witness.load(out / "witness.npz")
    assert witness.spikes == {}
    x = torch.from_numpy(witness.inputs).float() / 16
    expected = model.bn1(model.conv1(x)).relu()
    expected = model.bn2(model.conv2(expected)).relu()
    torch.testing.assert_close(
        torch.from_numpy(witness.outputs)[0], model.fc(expected.flatten(1)), rtol=1e-5, atol=1e-5
    )
    data = seen(recipe)
    with pytest.raises(RequestError, match="an ANN teaches, a Network fires") as caught:
        lift(model, Setting(data.shape, 1, data.scale, data.levels, data.coding))
    assert caught.value.code == "E_LIFT"


def test_a_student_learns_from_it_and_says_so(teacher, tmp_path):
    out, facts = teacher
    text = digits(neuron="lif", teacher=out, steps=3, epochs=2)
    student = train_run(parse_recipe(text, "test"), None, tmp_path / "student")
    last = facts["test"]["last"]
    assert student["teacher"] == {
        "run": str(out), "accuracy": last["accuracy"], "correct": last["correct"], "n": last["n"],
    }  # fmt: skip
    alone = parse_recipe(digits(neuron="lif", teacher="", steps=3, epochs=2), "test")
    other = train_run(alone, None, tmp_path / "alone")
    assert "teacher" not in other
    assert other["epochs"][0]["loss"] != student["epochs"][0]["loss"]


def test_the_teacher_is_asked_once_for_a_batch(teacher):
    out, _ = teacher
    recipe = parse_recipe(digits(neuron="lif", teacher=out, steps=3, epochs=1), "test")
    asked = Teacher.of(recipe, torch.device("cpu"))
    frames = torch.rand(4, 1, 8, 8)
    told = Objective(recipe.loss, asked).on(Batch(frames, LABELS[:4], LABELS[:4]))
    assert told.taught is not None
    assert not told.taught.requires_grad
    assert torch.equal(told.taught, outputs(load_run(out)[0], frames, 1)[0])


def test_other_teachers_are_refused(teacher, tmp_path):
    out, _ = teacher

    def refused(text: str, match: str) -> None:
        with pytest.raises(RequestError, match=match) as caught:
            Teacher.of(parse_recipe(text, "test"), torch.device("cpu"))
        assert caught.value.code == "E_TEACHER"

    own = digits(neuron="lif", teacher=out, steps=3, epochs=1)
    refused(own.replace("digits", "mnist"), r"shape is \(1, 8, 8\) \('digits'\), the student's")
    refused(own.replace('"digits"', '"digits"\ncoding = "latency"'), "teacher's scale is 0.0625")
    nowhere = digits(neuron="lif", teacher=tmp_path, steps=3, epochs=1)
    refused(nowhere, "history.json cannot be read")
    (tmp_path / "history.json").write_text(json.dumps({"test": {}}))
    refused(nowhere, "finished run")


def test_an_ann_has_one_step():
    text = digits(neuron="relu", teacher="", steps=4, epochs=1)
    with pytest.raises(RequestError, match=r"relu with train.steps = 4") as caught:
        build(parse_recipe(text, "test"))
    assert caught.value.code == "E_RECIPE"
