"""The balance of terms: what is measured is the gradient at the shared maps, and training goes on as it would."""

import json

import pytest
import torch

from kdam_hf.training.balance import BalanceProbe


def test_a_ratio_is_that_of_gradients_at_the_shared_maps_and_no_term_is_changed(kit):
    model, images, objective = kit.model(), torch.randn(2, 3, 32, 32), torch.nn.Identity()
    probe = BalanceProbe(model.encoder, objective, 2)
    predictions = model(images).predictions
    terms = {
        "loss_depth": predictions["depth"].mean(),
        "loss_edge": 2 * predictions["edge"].square().mean(),
        "kd_inter_task_depth": 3 * predictions["depth"].mean(),
        "kd_inter_task": 3 * predictions["depth"].mean(),
    }
    assert objective(terms) == objective(terms) == terms
    (norms,) = probe.norms
    maps = [x for x in probe._maps if x.requires_grad]
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, maps, retain_graph=True)
        assert norms[name] == pytest.approx(torch.cat([g.flatten() for g in gradients]).norm().item(), rel=1e-5)
    ratios = probe.ratios()
    assert ratios["kd_inter_task_depth"] == [pytest.approx(3, rel=1e-5)]
    together = (norms["loss_depth"] ** 2 + norms["loss_edge"] ** 2) ** 0.5
    assert ratios["kd_inter_task"] == [pytest.approx(3 * norms["loss_depth"] / together, rel=1e-5)]
    assert "kd_inter_task_depth" in probe.report()


def test_terms_beside_which_no_label_pulls_have_no_ratio_and_a_resumed_training_adds_to_its_own(kit, tmp_path):
    model, objective = kit.model(), torch.nn.Identity()
    probe = BalanceProbe(model.encoder, objective, 2, batches=2)
    path = tmp_path / "balance.json"
    probe.save(path, resumed=True)
    assert not path.exists()
    for call in range(5):
        depth = model(torch.randn(2, 3, 32, 32)).predictions["depth"].mean()
        objective({"loss_depth": depth * (call == 4), "kd_depth": depth, "kd_all": depth})
    assert len(probe.norms) == 2, "at the first and the third step, of two batches each"
    assert {name: len(values) for name, values in probe.ratios().items()} == {"kd_all": 1, "kd_depth": 1}
    for resumed, count in ((False, 1), (True, 2), (False, 1)):
        probe.save(path, resumed)
        assert len(json.loads(path.read_text())["kd_depth"]) == count


def test_measuring_changes_no_weight(kit):
    states = []
    for probed in (False, True):
        trainer = kit.distiller(name=f"run{probed}", max_steps=2)
        if probed:
            BalanceProbe(trainer.model.encoder, trainer.objective, 1)
        trainer.train()
        states.append(trainer.model.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_ratios_are_kept_in_the_order_of_steps_and_reported_by_their_median(tmp_path):
    probe, path = BalanceProbe(torch.nn.Identity(), torch.nn.Identity(), 1), tmp_path / "balance.json"
    for resumed, ratios in ((False, [1.0, 2.0]), (True, [9.0, 4.0, 5.0])):
        probe.norms = [{"loss_depth": 1.0, "kd_depth": ratio} for ratio in ratios]
        probe.save(path, resumed)
    assert json.loads(path.read_text())["kd_depth"] == [1, 2, 9, 4, 5]
    assert "| kd_depth | 5.00 | 9.00 | 5.00 |" in probe.report()


def test_a_term_belongs_to_the_task_whose_whole_name_it_ends_in():
    probe = BalanceProbe(torch.nn.Identity(), torch.nn.Identity(), 1)
    probe.norms = [{"loss_depth": 10.0, "loss_relative_depth": 1.0, "kd_relative_depth": 1.0, "kd_depth": 5.0}]
    assert probe.ratios() == {"kd_depth": [0.5], "kd_relative_depth": [1.0]}
