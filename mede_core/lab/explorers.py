"""The interactive explorers of the notebooks; the only module that imports ipywidgets.
Each shows a scene as an ``Image`` whose bytes change, so nothing flickers, piles up or jumps."""

from collections.abc import Callable, Mapping

import ipywidgets
import numpy as np

from ..averages import effective_epochs
from ..gwa import gaussian_weights, published_schedule
from ..world.render import PAIRS, SCENES, render
from ..world.synthetic import ACTORS, IN_CONTEXT_RHO, SOURCE_ACTORS, World, action_text, draw_spec, swap_background
from .diagnostics import quadratic_pull
from .gwa_accuracy import GwaAccuracy
from .scenes import STEP, Scene, gwa_scene, meta_step_scene, world_scene
from .toy import ToyProblem, make_toy_problem, run_toy

PIXELS_PER_INCH = 100  # of the page
WIDE = {"style": {"description_width": "9em"}, "layout": {"width": "34em"}}
BACKGROUNDS = {"as the dial says": "in", "another scene": "scene", "noise": "noise", "stripes": "stripes"}


def slider(name: str, value: float, low: float, high: float, step: float, css: str, *, direct: bool = True):
    limits = {"min": low, "max": high, "step": step, "continuous_update": direct}
    slider = ipywidgets.FloatSlider(value, **limits, description=name, readout_format=".2f", **WIDE)
    slider.add_class(css)
    return slider


def whole(name: str, low: int, high: int, css: str):
    slider = ipywidgets.IntSlider(low, min=low, max=high, description=name, **WIDE)
    slider.add_class(css)
    return slider


def choice(name: str, options, value=None):
    """A list to choose from: values, or {what is shown: value}; by default its first."""
    first = next(iter(options.values())) if isinstance(options, Mapping) else options[0]
    return ipywidgets.Dropdown(options=options, value=first if value is None else value, description=name, **WIDE)


def player():
    return ipywidgets.Play(value=1, min=1, max=8, interval=400, repeat=True)


def field(name: str, value: str, hint: str, css: str):
    text = ipywidgets.Text(value, description=name, placeholder=hint, continuous_update=False, **WIDE)
    text.add_class(css)
    return text


def upload(accept: str, take: Callable[[str, bytes], None]):
    """A button that hands name and bytes of a chosen file on."""
    button = ipywidgets.FileUpload(accept=accept, description="upload")
    button.observe(lambda change: [take(one.name, bytes(one.content)) for one in change.new], "value")
    return button


def explorer(
    scene: Scene,
    controls: Mapping[str, ipywidgets.Widget],
    values: Callable[..., tuple[dict, str]],
    css: str,
    action: tuple[str, Callable[..., None]] | None = None,
):
    """Controls, perhaps a button (its label and what it does), a readout and a picture of a scene's ``values``."""
    width, height = (round(inches * PIXELS_PER_INCH) for inches in scene.figure.get_size_inches())
    layout = ipywidgets.Layout(
        width=f"{width}px", height=f"{height}px", max_width="100%", flex="0 0 auto",
        object_fit="contain", object_position="left top",
    )  # fmt: skip
    picture = ipywidgets.Image(format="png", layout=layout)
    readout = ipywidgets.HTML(layout=ipywidgets.Layout(min_height="1.8em"))

    def now() -> dict:
        return {name: control.value for name, control in controls.items()}

    def draw(_change=None) -> None:
        drawn, text = values(**now())
        picture.value, readout.value = scene.png(**drawn), text

    def press(button) -> None:
        button.disabled = True
        try:
            action[1](**now())
        finally:
            button.disabled = False
        draw()

    for control in controls.values():
        control.observe(draw, "value")
    draw()
    buttons = []
    if action:
        buttons = [ipywidgets.Button(description=action[0])]
        buttons[0].on_click(press)
    children = [*controls.values(), *buttons, readout, picture]
    box = ipywidgets.VBox(children, layout=ipywidgets.Layout(overflow="visible"))
    for name in ("mede-explorer", css):
        box.add_class(name)
    picture.add_class("mede-picture")
    readout.add_class("mede-readout")
    return box


# ------------------------------------------------------------------------------------ weight averaging
def gwa_explorer(
    num_epochs: int,
    mu: float = 0.0,
    sigma: float = 0.0,
    *,
    plane: tuple[np.ndarray, float] | None = None,
    accuracy: GwaAccuracy | None = None,
):
    """Weights of GWA under sliders for mu and sigma (in epochs; 0: the published ratios), beside SWA and EMA: a widget.

    With ``plane``, of ``geometry.plane``, it also shows where the averages lie, with ``accuracy`` what they are worth.
    """
    published = published_schedule(num_epochs)
    mu, sigma = (round(one or other, 1) for one, other in zip((mu, sigma), published, strict=True))

    def values(mu: float, sigma: float) -> tuple[dict, str]:
        shares = gaussian_weights(num_epochs, mu, sigma).numpy()
        text = (
            f"spreads over <b>{effective_epochs(shares):.1f}</b> of {num_epochs} epochs &nbsp;·&nbsp; heaviest: epoch "
            f"{shares.argmax() + 1} with {100 * shares.max():.1f} % &nbsp;·&nbsp; lightest: epoch "
            f"{shares.argmin() + 1} with {100 * shares.min():.1f} % "
            f"&nbsp;·&nbsp; all alike would be {100 / num_epochs:.1f} %"
        )
        drawn = {"mu": mu, "sigma": sigma}
        if accuracy:
            drawn["reached"], said = accuracy.at(mu, sigma)
            text += f"<br>accuracy: {said}"
        return drawn, text

    controls = {
        "mu": slider("center μ (epoch)", mu, 0.0, 1.25 * num_epochs, 0.1, "mede-mu"),
        "sigma": slider("width σ (epochs)", sigma, 0.1, 1.5 * num_epochs, 0.1, "mede-sigma"),
    }
    action = ("measure here", accuracy.measure_at) if accuracy and accuracy.measure else None
    return explorer(gwa_scene(num_epochs, plane, accuracy), controls, values, "mede-gwa", action)


# ------------------------------------------------------------------------------------ the meta-step
def meta_step_values(problem: ToyProblem, inner_lr: float, query_weight: float = 1.0, first_order: bool = True) -> dict:
    """One training on the toy problem as the scene's values: the arrays of its first step, and the whole path."""
    settings = {"inner_lr": inner_lr, "query_weight": query_weight, "first_order": first_order}
    one, run = run_toy(problem, steps=1, **STEP, **settings), run_toy(problem, **settings)
    return {
        "theta": one.theta[0], "fast": one.theta_fast[0], "support_grad": one.support_grad[0],
        "query_grad": one.query_grad[0], "merged": one.merged_grad[0], "query_weight": query_weight, "path": run.theta,
    }  # fmt: skip


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
        "inner_lr": slider("inner step α", inner_lr, 0.0, 0.6, 0.05, "mede-alpha"),
        "query_weight": slider("query weight δ", query_weight, 0.0, 2.0, 0.1, "mede-delta"),
        "first_order": choice("gradient", {"first order (the paper)": True, "second order (exact)": False}),
    }
    return explorer(meta_step_scene(problem), controls, values, "mede-meta")


# ------------------------------------------------------------------------------------ the world's dial
def rho_explorer(world: World | None = None):
    """Clips of a reversal pair under the dial for static bias, with a choice of background: a widget.

    It draws the same clips at each setting; only their backgrounds change.
    """
    world, clips, num_frames = world or World(1), 10, 8
    pairs = {" / ".join(pair): number for number, pair in enumerate(PAIRS)}
    chance = 1 / len(SCENES)

    def values(rho: float, background: str, pair: int, actor: int) -> tuple[dict, str]:
        actions = [(actor, 2 * pair), (actor, 2 * pair + 1)]
        spec, labels = draw_spec(world, actions, 2 * clips, rho, np.random.default_rng([world.seed, pair, actor]))
        at_home = spec.scene == world.home[spec.motion]
        if background != "in":
            spec = swap_background(world, spec, background, np.random.default_rng([world.seed, pair, actor, 1]))
            at_home = np.zeros(len(spec), bool)
        rows = [np.flatnonzero(labels == motion) for motion in (0, 1)]
        middle = np.full(2 * clips, num_frames // 2)
        stills = render(spec, num_frames=num_frames, size=32, still=middle)[0][:, 0].permute(0, 2, 3, 1).numpy()
        strips = render(spec[np.array([row[0] for row in rows])], num_frames=num_frames, size=32)[0]
        drawn = {"shown": [], "framed": [], "titles": []}
        for (_, motion), row, strip in zip(actions, rows, strips.permute(0, 1, 3, 4, 2).numpy(), strict=True):
            drawn["shown"] += [strip, stills[row]]
            drawn["framed"] += [np.zeros(num_frames, bool), at_home[row]]
            home = f"home scene: {SCENES[world.home[motion]]}, shown by {at_home[row].sum()} (framed)"
            drawn["titles"] += [
                f"{action_text(actor, motion)}: one clip, frame by frame", f"one frame each of {clips} clips; {home}"
            ]  # fmt: skip
        if background == "in":
            text = f"<b>{at_home.sum()} of {2 * clips}</b> clips show their motion's home; chance: ρ = {chance:.2f}"
        else:
            text = "swapped: the background says nothing about the motion; the actor and its motion are as before"
        return drawn, text

    controls = {
        "rho": slider("scene-action ρ", IN_CONTEXT_RHO, chance, 1.0, 0.05, "mede-rho", direct=False),
        "background": choice("background", BACKGROUNDS),
        "pair": choice("motions", pairs),
        "actor": choice("actor", {ACTORS[a]: a for a in range(SOURCE_ACTORS)}),
    }
    return explorer(world_scene(num_frames, clips), controls, values, "mede-world")
