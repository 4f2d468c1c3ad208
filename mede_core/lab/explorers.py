"""The interactive explorers of the notebooks; the only module that imports ipywidgets.
Each shows a scene as an ``Image`` whose bytes change, so nothing flickers, piles up or jumps."""

import threading
import time
from collections.abc import Callable, Mapping

import ipywidgets
import numpy as np
import pandas as pd

from ..averages import effective_epochs
from ..gwa import published_schedule
from ..report.figures.style import look_of
from ..report.tables import in_order
from ..world.render import PAIRS, SCENES, render
from ..world.synthetic import ACTORS, IN_CONTEXT_RHO, SOURCE_ACTORS, World, action_text, draw_spec, swap_background
from .diagnostics import quadratic_pull
from .gwa_accuracy import GwaAccuracy, average_of, shares_of
from .scenes import STEP, Redrawn, Scene, gwa_scene, meta_step_scene, world_scene
from .toy import ToyProblem, make_toy_problem, run_toy

PIXELS_PER_INCH = 100  # of the page
WIDE = {"style": {"description_width": "9em"}, "layout": {"width": "30em"}}  # two stand side by side in a small window
LONG = {"layout": {"width": "60em", "max_width": "100%"}}
BACKGROUNDS = {"as the dial says": "in", "another scene": "scene", "noise": "noise", "stripes": "stripes"}


def slider(name: str, value: float, low: float, high: float, step: float = 1, *, direct: bool = True):
    """Of whole numbers where its step is one."""
    kind = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
    form = {} if isinstance(step, int) else {"readout_format": ".2f"}
    limits = {"min": low, "max": high, "step": step, "continuous_update": direct}
    return kind(value, **limits, description=name, **form, **WIDE)


def choice(name: str, options, **first):
    """A list to choose from: values, or {what is shown: value}; ``value``: where it begins, by default its first."""
    return ipywidgets.Dropdown(options=options, description=name, **WIDE | first)


def player():
    return ipywidgets.Play(value=1, min=1, max=8, interval=400, repeat=True)


def field(name: str, value: str, hint: str):
    return ipywidgets.Text(value, description=name, placeholder=hint, continuous_update=False, **WIDE | LONG)


def upload(accept: str, take: Callable[[str, bytes], None]):
    """A button that hands name and bytes of a chosen file on."""
    button = ipywidgets.FileUpload(accept=accept, description="upload")
    button.observe(lambda change: [take(one.name, bytes(one.content)) for one in change.new], "value")
    return button


def explorer(
    scene: Scene | Redrawn,
    controls: Mapping[str, ipywidgets.Widget],
    values: Callable[..., tuple[dict, str]],
    css: str,
    action: tuple[str, Callable[..., None]] | None = None,
    watch: Callable[..., object] | None = None,
):
    """Controls (of the class ``mede-NAME``), perhaps a button (label, what it does), readout and a scene's picture,
    which is drawn anew where the answer of ``watch`` changes."""
    layout = {"max_width": "100%", "flex": "0 0 auto", "object_fit": "contain", "object_position": "left top"}
    picture = ipywidgets.Image(format="png", layout=layout).add_class("mede-picture")
    readout = ipywidgets.HTML(layout={"min_height": "1.8em"}).add_class("mede-readout")

    def now() -> dict:
        return {name: control.value for name, control in controls.items()}

    def draw(_change=None) -> None:
        drawn, text = values(**now())
        picture.value, readout.value = scene.png(**drawn), text

    def press(button) -> None:
        button.disabled, button.description = True, "working ..."
        try:
            action[1](**now())
        finally:
            button.disabled, button.description = False, action[0]
        draw()

    def follow(seen) -> None:
        while box.comm is not None:  # a closed widget has none
            time.sleep(1)
            if (found := watch(**now())) != seen:
                seen = found
                draw()

    for name, control in controls.items():
        control.add_class(f"mede-{name}")
        control.observe(draw, "value")
    seen = watch(**now()) if watch else None  # before it is drawn, or what comes in between is missed
    draw()
    size = (f"{round(inches * PIXELS_PER_INCH)}px" for inches in scene.figure.get_size_inches())
    picture.layout.width, picture.layout.height = size
    buttons = [ipywidgets.Button(description=action[0])] if action else []
    for button in buttons:
        button.on_click(press)
    panel = ipywidgets.Box([*controls.values(), *buttons], layout={"flex_flow": "row wrap"})
    box = ipywidgets.VBox([panel, readout, picture], layout={"overflow": "visible"})
    box.add_class("mede-explorer").add_class(css)
    if watch:  # also while a cell of the notebook trains
        threading.Thread(target=follow, args=(seen,), daemon=True).start()
    return box


# ------------------------------------------------------------------------------------ weight averaging
RULES = {
    "Gaussian: the sliders": "gwa", "SWA: all alike": "swa", "EMA: decay 0.9": "ema", "the last epoch alone": "last",
    "the last, patched with half CLIP": "patched",
}  # fmt: skip


def gwa_explorer(
    num_epochs: int,
    mu: float = 0.0,
    sigma: float = 0.0,
    *,
    plane: tuple[np.ndarray, float] | None = None,
    accuracy: GwaAccuracy | None = None,
):
    """Weights of an average under sliders for mu and sigma (in epochs; 0: the published ratios) and the first epoch
    that counts, with other rules as presets: a widget.

    With ``plane``, of ``geometry.plane``, it also shows where the averages lie, with ``accuracy`` what they are worth.
    """
    first = [one or other for one, other in zip((mu, sigma), published_schedule(num_epochs), strict=True)]
    rounded = [round(one, 1) for one in first]

    def exact(mu: float, sigma: float, **others) -> dict:
        """A slider rounds: where it stands as it began, what it began with is meant."""
        mu, sigma = round(mu, 1), round(sigma, 1)  # a browser counts 36 steps of 0.1 as a little more than 3.6
        mu, sigma = first if [mu, sigma] == rounded else (mu, sigma)
        return {"mu": mu, "sigma": sigma, **others}

    def values(**chosen) -> tuple[dict, str]:
        drawn = exact(**chosen)
        shares = shares_of(average_of(**drawn), num_epochs)
        counted = np.flatnonzero(shares)
        low, high = counted[shares[counted].argmin()], shares.argmax()
        text = (
            f"spreads over <b>{effective_epochs(shares):.1f}</b> of {num_epochs} epochs &nbsp;·&nbsp; heaviest: epoch "
            f"{high} with {100 * shares[high]:.1f} % &nbsp;·&nbsp; lightest: epoch "
            f"{low} with {100 * shares[low]:.1f} % &nbsp;·&nbsp; all alike would be {100 / num_epochs:.1f} %"
        )
        if accuracy:
            drawn["reached"], said = accuracy.at(**drawn)
            text += f"<br>accuracy: {said}"
        return drawn, text

    begin = {"1, as in the paper": 1, "0: CLIP's own weights count": 0}
    controls = {
        "rule": choice("average", RULES),
        "mu": slider("center μ (epoch)", rounded[0], 0.0, 1.25 * num_epochs, 0.1),
        "sigma": slider("width σ (epochs)", rounded[1], 0.1, 1.5 * num_epochs, 0.1),
        "start": choice("first epoch", begin | {str(epoch): epoch for epoch in range(2, num_epochs)}),
    }
    for name in ("mu", "sigma"):  # whoever moves a slider means the Gaussian
        controls[name].observe(lambda _change: setattr(controls["rule"], "value", "gwa"), "value")
    action = None
    if accuracy and accuracy.measure:
        action = "measure here", lambda **chosen: accuracy.measure_at(**exact(**chosen))
    return explorer(gwa_scene(num_epochs, plane, accuracy), controls, values, "mede-gwa", action)


# ------------------------------------------------------------------------------------ the meta-step
def meta_step_values(problem: ToyProblem, inner_lr: float, query_weight: float = 1.0, first_order: bool = True) -> dict:
    """One training on the toy problem as the scene's values: the arrays of its first step, and the whole path."""
    settings = {"inner_lr": inner_lr, "query_weight": query_weight, "first_order": first_order}
    one, run = run_toy(problem, steps=1, **STEP, **settings), run_toy(problem, **settings)
    names = ("theta", "theta_fast", "support_grad", "query_grad", "merged_grad")
    return {**{name: getattr(one, name)[0] for name in names}, "query_weight": query_weight, "path": run.theta}


def meta_step_explorer(problem: ToyProblem | None = None, inner_lr: float = 0.15, query_weight: float = 1.0):
    """The meta-step on two parameters under sliders for alpha and delta: a widget."""
    problem = problem or make_toy_problem()

    def values(inner_lr: float, query_weight: float, first_order: bool) -> tuple[dict, str]:
        drawn = meta_step_values(problem, inner_lr, query_weight, first_order)
        static, motion = (quadratic_pull(h, inner_lr, query_weight, first_order) for h in problem.curvature)
        a, b = drawn["support_grad"], drawn["query_grad"]
        text = (
            f"average pull along θ₁ (static): <b>{static:.2f}</b>, along θ₂ (motion): <b>{motion:.2f}</b>, ratio "
            f"{static / motion:.2f} &nbsp;·&nbsp; this step: g<sub>S</sub>·g<sub>Q</sub> = {a @ b:.2f}"
        )
        return drawn, text

    controls = {
        "inner_lr": slider("inner step α", inner_lr, 0.0, 0.6, 0.05),
        "query_weight": slider("query weight δ", query_weight, 0.0, 2.0, 0.1),
        "first_order": choice("gradient", {"first order (the paper)": True, "second order (exact)": False}),
    }
    return explorer(meta_step_scene(problem), controls, values, "mede-meta")


# ------------------------------------------------------------------------------------ the world's dial
CLIPS, FRAMES = 10, 8  # of a motion; of a clip


def dial_values(
    world: World, rho: float, background: str = "in", pair: int = 0, actor: int = 0, *, strips=True
) -> dict:
    """The values of ``world_scene`` at a setting of the dial: the same clips at each, only their backgrounds change."""
    actions = [(actor, 2 * pair), (actor, 2 * pair + 1)]
    spec, labels = draw_spec(world, actions, 2 * CLIPS, rho, np.random.default_rng([world.seed, pair, actor]))
    at_home = spec.scene == world.home[spec.motion]
    if background != "in":
        spec = swap_background(world, spec, background, np.random.default_rng([world.seed, pair, actor, 1]))
        at_home = np.zeros(len(spec), bool)
    middle = np.full(2 * CLIPS, FRAMES // 2)
    stills = render(spec, num_frames=FRAMES, size=32, still=middle)[0][:, 0].permute(0, 2, 3, 1).numpy()
    rows = []
    for number, (_, motion) in enumerate(actions):
        row, home = np.flatnonzero(labels == number), SCENES[world.home[motion]]
        if strips:
            film = render(spec[row[:1]], num_frames=FRAMES, size=32)[0][0].permute(0, 2, 3, 1).numpy()
            rows.append((film, np.zeros(FRAMES, bool), f"{action_text(actor, motion)}: one clip, frame by frame"))
        title = "" if strips else f"{action_text(actor, motion)}: "
        title += f"one frame each of {CLIPS} clips; home scene: {home}, shown by {at_home[row].sum()} (framed)"
        rows.append((stills[row], at_home[row], title))
    return {"rho": rho, "rows": rows}


def rho_explorer(world: World | None = None, dial: pd.DataFrame | None = None, bound: Mapping | None = None):
    """Clips of a reversal pair under the dial for static bias, with a choice of background: a widget.

    With ``dial``, of ``tables.dial``, the clips stand below the dose-response curves, and the readout reads them off.
    """
    world, chance = world or World(1), 1 / len(SCENES)
    pairs = {" / ".join(pair): number for number, pair in enumerate(PAIRS)}

    def values(**chosen) -> tuple[dict, str]:
        drawn = dial_values(world, **chosen, strips=dial is None)
        if chosen["background"] == "in":
            at_home = sum(framed.sum() for _, framed, _ in drawn["rows"])
            text = f"<b>{at_home} of {2 * CLIPS}</b> clips show their motion's home; chance: ρ = {chance:.2f}"
        else:
            text = "swapped: the background says nothing about the motion; the actor and its motion are as before"
        return drawn, text if dial is None else f"{text}<br>{read_off(dial, chosen['rho'])}"

    controls = {
        "rho": slider("scene-action ρ", IN_CONTEXT_RHO, chance, 1.0, 0.05, direct=False),
        "background": choice("background", BACKGROUNDS),
        "pair": choice("motions", pairs),
        "actor": choice("actor", {ACTORS[a]: a for a in range(SOURCE_ACTORS)}),
    }
    return explorer(world_scene(FRAMES, CLIPS, dial, bound), controls, values, "mede-world")


def read_off(dial: pd.DataFrame, rho: float) -> str:
    """What learners trained at a setting reach out of context; between measured points, on straight lines."""
    out, said = dial[dial["context"] == "out"].sort_values("rho"), []
    for method in in_order(out["method"]):
        own = out[out["method"] == method]
        said.append(f"{look_of(method).label} {np.interp(rho, own['rho'], own['value']):.1f} %")
    measured = np.isclose(out["rho"], rho).any()
    return f"out of context ({'measured' if measured else 'between measured points'}): {', '.join(said)}"
