"""What transformers generates with a model of ours: it begins and ends where lm.infer does."""

import functools
import itertools
import tempfile
import types

import numpy as np
import pytest
import torch
import transformers
from cases import BY_NAME, make

from lm import hf
from lm.hf.ids import to_write
from lm.infer.decode import generate
from lm.model.architectures import build
from lm.model.execution import Execution

NEW, PROMPT = 8, [5, 9, 2, 7]
PAD, START = 3, 4


@functools.cache
def ours(name):
    """(case, configuration, parameters, what the model writes without an end)."""
    case = BY_NAME[name]
    folder = hf_folder(name)
    config, params = hf.load(folder)
    return case, config, params, written(config, params, ())


@functools.cache
def hf_folder(name):
    folder = tempfile.mkdtemp()
    transformers.utils.logging.disable_progress_bar()
    make(BY_NAME[name]).save_pretrained(folder)
    return folder


def written(config, params, ends):
    prompt = PROMPT if config.architecture == "encoder_decoder" else [START, *PROMPT]
    model = build(config, Execution(unroll=False, attention="xla"))
    return generate(model, params, [prompt], max_new_tokens=NEW, eos_id=ends, start_id=START)[0]


def theirs(case, folder, config):
    """(the model, the new tokens that it generates) with what its files say and nothing else."""
    model = case.model_class.from_pretrained(folder, attn_implementation="eager").eval()
    is_pair = config.architecture == "encoder_decoder"
    prompt = torch.tensor([PROMPT if is_pair else [model.config.bos_token_id, *PROMPT]])
    with torch.no_grad():
        found = model.generate(prompt, max_new_tokens=NEW, do_sample=False)[0].tolist()
    return model, found[1:] if is_pair else found[prompt.shape[1] :]


@pytest.mark.parametrize("name", ["gpt2", "llama3", "neox", "t5_1.0", "bart"])
def test_a_model_trained_here_begins_and_ends_there_as_here(name, tmp_path):
    case, config, params, endless = ours(name)
    end = next(token for i, token in enumerate(endless) if i >= 2 and token not in endless[:i]) if len(set(endless)) > 2 else endless[-1]
    tokenizer = types.SimpleNamespace(eos_id=end, pad_id=PAD, start_id=START)
    hf.save(tmp_path / "out", config, params, family=BY_FAMILY[case.architecture], ids=to_write(config, tokenizer, None))
    model, found = theirs(case, tmp_path / "out", config)
    assert found[-1] == end  # and not after 20 tokens, or at the id that the family's own models end with
    assert found[:-1] == written(config, params, (end,))
    if config.architecture == "encoder_decoder":  # the loss that transformers trains and is evaluated with
        labels = torch.tensor([[6, 8, end]])
        logits = model(input_ids=torch.tensor([PROMPT]), decoder_input_ids=torch.tensor([[START, 6, 8]])).logits
        expected = torch.nn.functional.cross_entropy(logits[0], labels[0])
        np.testing.assert_allclose(model(input_ids=torch.tensor([PROMPT]), labels=labels).loss.item(), expected.item(), rtol=1e-6)


@pytest.mark.parametrize("name", ["llama3", "t5_1.0"])
def test_several_ends_of_an_import_end_its_export(name, tmp_path):
    case, config, params, endless = ours(name)
    distinct = list(dict.fromkeys(endless))
    ends = [distinct[-1], distinct[-2]] if len(distinct) > 2 else [distinct[-1], 30]
    keys = {"bos_token_id": START, "decoder_start_token_id": START, "pad_token_id": PAD}
    source = {"config": {**keys, "eos_token_id": ends[0]}, "generation": {**keys, "eos_token_id": ends}}
    hf.save(tmp_path / "out", config, params, family=BY_FAMILY[case.architecture], ids=to_write(config, None, source))
    _, found = theirs(case, tmp_path / "out", config)
    assert list(itertools.takewhile(lambda token: token not in ends, found)) == written(config, params, ends)
    assert found[-1] in ends


BY_FAMILY = {family.architecture: name for name, family in hf.FAMILIES.items()}
