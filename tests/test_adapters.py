"""Temporal modules: published sizes, the identity at the start, and parity with the published equations."""

import copy
import math

import pytest
import torch
from torch import nn

from mede_core.adapters import AIMBlock, NeighborAttention, SelfAttention, STAdapter, insert_temporal
from mede_core.learner import build_learner
from mede_core.meta import meta_gradients
from mede_core.methods import cross_entropy
from mede_core.speed import PatchProduct, compile_encoder, without_copies


@pytest.fixture(scope="module")
def video():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 8, 3, 32, 32), dtype=torch.uint8, generator=generator)


def frozen():
    return build_learner(adapter_width=0, trainable="visual")


# --- sizes


def test_vit_b16_with_each_temporal_module_has_the_published_number_of_trainable_parameters():
    def trainable(**options):
        learner = build_learner("ViT-B-16", random_weights=True, **options)
        assert learner.image_size == 224 and learner.weights_id == "random"
        return sum(tensor.numel() for tensor in learner.trainable_state().values())

    assert trainable(adapter_width=384, adapter_form="published") == 12 * 592_512
    assert sum(p.numel() for p in STAdapter(768, 384).parameters()) == 592_512 + 2 * 768  # ours: the LayerNorm
    assert trainable(temporal_module="aim", adapter_width=192) == 10_657_536  # printed as 10.66 M
    whole = trainable(temporal_module="expanded", trainable="visual")
    assert whole == trainable(adapter_width=0, trainable="visual") == 86_192_640  # printed as 86.19 M


# --- the identity at the start


@pytest.mark.parametrize(
    "options",
    [
        {"adapter_form": "ours"},
        {"adapter_form": "published"},
        {"adapter_form": "published_conv"},
        {"temporal_module": "aim"},
    ],
    ids=str,
)
def test_a_fresh_learner_with_adapters_is_frozen_clip_to_the_bit_and_can_learn(options, video):
    learner = build_learner(**options)
    assert torch.equal(learner.encode(video), frozen().encode(video))
    learner.encode(video).mean(1).square().sum(0)[0].backward()
    reached = [name for name, p in learner.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert reached, "at the start no gradient reaches any adapter"


def test_the_two_published_initializations_differ_in_what_is_zero():
    up, conv = (STAdapter(12, 6, norm=False, activation=False, zero=zero) for zero in ("up", "conv"))
    assert up.up.weight.abs().sum() == 0 and up.conv.weight.abs().sum() > 0
    assert conv.up.weight.abs().sum() > 0 and conv.conv.weight.abs().sum() == 0
    assert all(layer.bias.abs().sum() == 0 for layer in (conv.down, conv.conv, conv.up))


# --- ST-Adapter and AIM against loops over frames


def test_published_st_adapter_equals_a_loop_over_frames_in_float64():
    torch.manual_seed(0)
    adapter = STAdapter(10, 4, norm=False, activation=False).double()
    for p in adapter.parameters():
        nn.init.normal_(p)
    tokens, frames = torch.randn(6, 5, 10, dtype=torch.float64), 3  # two clips of three frames
    result = adapter(tokens, frames)
    hidden = tokens @ adapter.down.weight.T + adapter.down.bias
    for clip in range(2):
        for t in range(frames):
            mixed = adapter.conv.bias.clone().expand(5, -1)
            for offset, k in ((-1, 0), (0, 1), (1, 2)):
                if 0 <= t + offset < frames:
                    mixed = mixed + adapter.conv.weight[:, 0, k] * hidden[3 * clip + t + offset]
            expected = tokens[3 * clip + t] + mixed @ adapter.up.weight.T + adapter.up.bias
            assert torch.allclose(result[3 * clip + t, 1:], expected[1:], rtol=0, atol=1e-12)
            assert torch.equal(result[3 * clip + t, 0], tokens[3 * clip + t, 0])


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_the_convolution_over_time_is_a_sum_of_shifted_frames(kernel_size):
    adapter = STAdapter(10, 4, kernel_size=kernel_size).double()
    hidden = torch.randn(2, 6, 5, 4, dtype=torch.float64)  # [B, T, P, d]
    expected = adapter.conv(hidden.permute(0, 2, 3, 1).reshape(10, 4, 6)).view(2, 5, 4, 6).permute(0, 3, 1, 2)
    torch.testing.assert_close(adapter._over_time(hidden), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("given", [{"need_weights": False}, {}, {"average_attn_weights": False}], ids=str)
def test_self_attention_gives_torchs_numbers_weights_and_gradients(given):
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    ours, x, results = copy.deepcopy(theirs), torch.randn(4, 5, 12, dtype=torch.float64, requires_grad=True), []
    ours.__class__ = SelfAttention
    for layer in (theirs, ours):
        output, weights = layer(x, x, x, **given)
        grads = torch.autograd.grad(output.square().sum(), [x, *layer.parameters()])
        results.append([output, *([] if weights is None else [weights]), *grads])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"temporal_module": "aim"},
                                     {"temporal_module": "expanded", "trainable": "visual"}], ids=str)  # fmt: skip
def test_a_compiled_encoder_is_one_graph_and_is_compiled_once_for_all_steps(options, video):
    labels = torch.tensor([0, 1])
    learner = build_learner(**options).set_classes(["a", "b"])
    expected = meta_gradients(learner, cross_entropy, (video, labels), (video, labels), inner_lr=0.1).grads
    compile_encoder(learner, backend="eager", fullgraph=True)
    for step in range(3):
        with torch.compiler.set_stance("fail_on_recompile" if step else "default"):
            found = meta_gradients(learner, cross_entropy, (video, labels), (video, labels), inner_lr=0.1).grads
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient)


@pytest.mark.parametrize("options", [{}, {"temporal_module": "aim"}, {"adapter_width": 0}], ids=str)
def test_an_encoder_without_copies_gives_the_same_numbers_and_gradients(options, video):
    torch.manual_seed(0)
    learner = build_learner(**options, trainable="visual").set_classes(["a", "b"]).double()
    for name, tensor in learner.named_parameters():
        if "adapter" in name:
            nn.init.normal_(tensor, std=0.1)  # as they start, they are the identity
    with torch.no_grad():
        before = learner(video)
    gradients = torch.autograd.grad(learner(video).square().sum(), [*learner.parameters()])
    assert type(without_copies(learner).visual.conv1) is PatchProduct
    with torch.no_grad():
        torch.testing.assert_close(learner(video), before, rtol=1e-12, atol=1e-12)
    for found, expected in zip(torch.autograd.grad(learner(video).square().sum(), [*learner.parameters()]), gradients):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_aim_block_equals_its_equations_in_float64():
    torch.manual_seed(0)
    learner = build_learner(temporal_module="aim", num_frames=4).double()
    block = learner.visual.transformer.resblocks[0]
    assert isinstance(block, AIMBlock)
    for adapter in (block.temporal_adapter, block.spatial_adapter, block.mlp_adapter):
        nn.init.normal_(adapter.up.weight)
    block.num_frames = 4
    x = torch.randn(8, 17, 96, dtype=torch.float64)

    def attend(sequence):  # [N, L, D] with the block's own frozen attention
        return block.attn(sequence, sequence, sequence, need_weights=False)[0]

    expected = x.clone()
    for clip in range(2):
        for place in range(17):
            over_time = x[4 * clip : 4 * clip + 4, place][None]
            expected[4 * clip : 4 * clip + 4, place] += block.temporal_adapter(attend(block.ln_1(over_time)))[0]
    spatial = attend(block.ln_1(expected))
    expected = expected + spatial + block.spatial_adapter(spatial)
    normed = block.ln_2(expected)
    expected = expected + block.mlp(normed) + 0.5 * block.mlp_adapter(normed)
    assert torch.allclose(block(x), expected, rtol=0, atol=1e-12)


def test_aim_refuses_another_number_of_frames_than_it_was_built_for(video):
    with pytest.raises(ValueError, match=r"video has 8 frames; this AIM learner was built for 4"):
        build_learner(temporal_module="aim", num_frames=4).encode(video)


# --- expanded attention


def expanded_by_loops(attention, tokens, frames, border):
    """Open-VCLIP's attention, one frame, head and query at a time."""
    width, heads = tokens.shape[-1], attention.num_heads
    size = width // heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    q, k, v = (tokens @ weight[i * width : (i + 1) * width].T + bias[i * width : (i + 1) * width] for i in range(3))
    out = torch.zeros_like(tokens)
    for index in range(len(tokens)):
        t, place = index % frames, slice(None)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            keys, values = [], []
            for offset in (-1, 0, 1):
                if 0 <= t + offset < frames:
                    keys.append(k[index + offset, place, part])
                    values.append(v[index + offset, place, part])
                elif border == "zero":
                    keys.append(torch.zeros_like(k[index, place, part]))
                    values.append(torch.zeros_like(v[index, place, part]))
            keys, values = torch.cat(keys), torch.cat(values)
            for row in range(tokens.shape[1]):
                scores = torch.exp(keys @ q[index, row, part] / math.sqrt(size))
                out[index, row, part] = (scores / scores.sum()) @ values
    return out @ attention.out_proj.weight.T + attention.out_proj.bias


def neighbor_attention(frames, border):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(12, 3, batch_first=True).double()
    nn.init.normal_(attention.in_proj_bias)
    attention.__class__ = NeighborAttention
    attention.num_frames, attention.border = frames, border
    return attention


@pytest.mark.parametrize("border", ["zero", "mask"])
@pytest.mark.parametrize("frames", [1, 2, 4])
def test_expanded_attention_equals_a_loop_over_frames_in_float64(frames, border):
    attention = neighbor_attention(frames, border)
    tokens = torch.randn(2 * frames, 5, 12, dtype=torch.float64)
    expected = expanded_by_loops(attention, tokens, frames, border)
    plain, weights = attention(tokens, tokens, tokens, need_weights=False)
    assert torch.allclose(plain, expected, rtol=0, atol=1e-12) and weights is None
    result, weights = attention(tokens, tokens, tokens, average_attn_weights=False)
    assert torch.allclose(result, expected, rtol=0, atol=1e-12)
    assert weights.shape == (2 * frames, 3, 5, 15) and torch.allclose(weights.sum(-1), torch.ones(()).double())


def test_expanded_attention_sees_shuffled_frames_but_never_a_reversed_clip(video):
    learner = build_learner(temporal_module="expanded", trainable="visual")
    assert learner.state_dict().keys() == frozen().state_dict().keys()  # no tensor of its own
    learner = learner.double().set_classes(["a red star rising", "a blue ball falling"])
    floating = video.double() / 255
    shuffled = floating[:, [3, 0, 6, 1, 7, 4, 2, 5]]
    assert (learner(floating) - learner(shuffled)).abs().max() > 1e-2
    # Keys of the frames before and after enter the softmax alike, so reversal only reverses the frame features.
    assert torch.allclose(learner(floating), learner(floating.flip(1)), rtol=0, atol=1e-9)


# --- bad input


def test_bad_choices_name_field_and_allowed_values():
    visual = frozen().visual
    for name, options in (
        ("temporal_module", {"temporal_module": "tsm"}),
        ("adapter_form", {"form": "theirs"}),
        ("border", {"border": "wrap"}),
    ):
        with pytest.raises(ValueError, match=rf"{name} is .*; allowed: "):
            insert_temporal(visual, **options)
    with pytest.raises(ValueError, match="adapter_width is 0"):
        insert_temporal(visual, bottleneck=0)
    for name, value in (("bottleneck", 0), ("kernel_size", 2), ("zero", "all")):
        with pytest.raises(ValueError, match=f"{name} is"):
            STAdapter(**{"width": 8, "bottleneck": 4, name: value})
    with pytest.raises(ValueError, match=r"temporal_module is 'expanded', so trainable='adapters' would train nothing"):
        build_learner(temporal_module="expanded")
