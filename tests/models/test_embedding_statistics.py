"""Moments of the embeddings, in the space the first layer reads."""

import pytest
import torch

from lm_eval_ext.models.embedding_statistics import embedding_statistics


@pytest.mark.parametrize("name", ["llama", "gemma3", "granite"])
def test_moments_are_those_of_the_modules_output(random_model, name, monkeypatch):
    monkeypatch.setattr("lm_eval_ext.models.embedding_statistics._ROWS_PER_SLICE", 100)
    model = random_model(name)
    module = model.get_input_embeddings()
    table = module.weight.detach().double()
    if name == "gemma3":  # scales inside the module; Granite after it, injected vectors included
        table = table * model.config.hidden_size**0.5
    statistics = embedding_statistics(model)
    assert statistics.n_rows == table.shape[0]
    assert statistics.mean == pytest.approx(float(table.mean()), rel=1e-5, abs=1e-8)
    assert statistics.std == pytest.approx(float(table.std(correction=0)), rel=1e-5)
    torch.testing.assert_close(statistics.mean_per_dim, table.mean(0), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        statistics.std_per_dim, table.std(0, correction=0), rtol=1e-4, atol=1e-6
    )
