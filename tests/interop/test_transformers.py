"""A `save_params` folder is what Hugging Face's libraries read, and the other way round. Nothing is downloaded."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import holdfast
from cli.calling import call
from holdfast import dtypes, saving
from holdfast.engine.plan import plan_files
from holdfast.interop import huggingface
from interop.truth import same

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
import huggingface_hub  # noqa: E402
import safetensors.torch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def model() -> "transformers.BertModel":
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=12,
    )  # fmt: skip
    return transformers.BertModel(config).eval()


def weights(model: "torch.nn.Module") -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("sharded", [False, True])
def test_from_pretrained_opens_what_save_params_saved(
    sharded: bool, model: "transformers.BertModel", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sharded:
        monkeypatch.setattr(saving, "plan_files", partial(plan_files, file_bytes=10_000))
    holdfast.save_params(weights(model), tmp_path / "m")
    model.config.save_pretrained(tmp_path / "m")

    again, info = transformers.AutoModel.from_pretrained(tmp_path / "m", output_loading_info=True)

    assert all(not found for found in info.values()), info
    wanted, found = weights(model), weights(again)
    assert wanted.keys() == found.keys()
    assert all(same(found[name], wanted[name]) for name in wanted)
    tokens = torch.arange(10).reshape(2, 5)
    with torch.no_grad():
        assert torch.equal(model(tokens).last_hidden_state, again.eval()(tokens).last_hidden_state)
    files = [name for name in os.listdir(tmp_path / "m") if name.endswith(".safetensors")]
    assert (len(files) > 1) == sharded


def test_load_file_opens_what_save_params_saved(model: "transformers.BertModel", tmp_path: Path) -> None:
    wanted = {**weights(model), "half": np.ones(3, dtypes.to_numpy("BF16")), "scalar": np.array(2, np.int64)}
    holdfast.save_params(wanted, tmp_path / "m")

    found = safetensors.torch.load_file(tmp_path / "m" / "model.safetensors")

    assert found.keys() == wanted.keys()
    assert found["half"].dtype == torch.bfloat16
    assert all(same(found[name].numpy(), array) for name, array in wanted.items() if name != "half")


def test_what_save_pretrained_saved_is_read(model: "transformers.BertModel", tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m", max_shard_size="10KB")
    assert (tmp_path / "m" / "model.safetensors.index.json").exists()

    held = huggingface.read_folder(tmp_path / "m")

    wanted = weights(model)
    assert held.arrays.keys() == wanted.keys()
    assert all(same(held.arrays[name], wanted[name]) for name in wanted)
    assert held.left_out == ["file config.json"]


@pytest.mark.parametrize("source", ["safetensors", "bin", "shards of bin", "training file"])
def test_what_was_converted_opens_with_from_pretrained(
    source: str, model: "transformers.BertModel", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options: list[str] = []
    if source == "safetensors":
        model.save_pretrained("theirs", max_shard_size="10KB")
    elif source == "training file":
        optimizer = torch.optim.AdamW(model.parameters())
        torch.save({"net": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}, "theirs")
        options = ["--part", "net"]
    else:
        model.config.save_pretrained("theirs")
        size = "1GB" if source == "bin" else "10KB"
        huggingface_hub.save_torch_state_dict(
            model.state_dict(), "theirs", safe_serialization=False, max_shard_size=size
        )
        assert os.path.exists("theirs/pytorch_model.bin.index.json") == (source == "shards of bin")

    called = call("convert", "theirs", "ours", *options)
    model.config.save_pretrained("ours")

    assert called.status == 0, called.err
    again, info = transformers.AutoModel.from_pretrained("ours", output_loading_info=True)
    assert all(not found for found in info.values()), info
    wanted, found = weights(model), weights(again)
    assert wanted.keys() == found.keys()
    assert all(same(found[name], wanted[name]) for name in wanted)
    assert safetensors.torch.load_file("ours/model.safetensors").keys() == wanted.keys()
    fresh = transformers.BertModel(model.config)
    holdfast.load_params(fresh, "ours")
    assert all(same(weights(fresh)[name], wanted[name]) for name in wanted)
