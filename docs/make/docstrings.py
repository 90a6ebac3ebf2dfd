"""What a public docstring must say, and whether it does: parameters, attributes, result, errors.

The rules, for every name that `docs.make.public` lists and for every public method and property of a public class:

- there is a docstring;
- every parameter stands under `Args:`, or its name is a word of the text, or the text says whose arguments they are
  (of a class: also those of its constructor; fields of a data class may stand under `Attributes:`, or have a string
  below them);
- a function that returns a value and whose summary says what it does ("Make ...", "Read ...") has `Returns:`; where the
  summary names the result ("The ...", "Whether ..."), and in a method that one paragraph describes, it need not;
- what is said of a parameter that is an array names its shape or its type;
- every exception that the body itself raises by name stands under `Raises:`;
- a method that a public base class or protocol describes need not say it again.

Not here: whether what they say is true.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from docs.make.public import MODULES, Name, first_home, names, text_of

_SECTION = re.compile(r"^(\w+):[ \t]*(.*(?:\n(?:[ \t]+.*|[ \t]*))*)", re.MULTILINE)
_DOES = re.compile(  # a summary that says what is done, and not what comes back
    r"(Add|Apply|Attack|Build|Charge|Check|Clip|Create|Cut|Draw|Find|Fine-tune|Give|Load|Look|Make|Mask|Open|Plan|Play|Put|"
    r"Read|Run|Say|Send|Step|Sum|Take|Trace|Train|Turn|Wrap|Write)\b"
)
_FORM = re.compile(r"shape|dimensional|dtype|float|bool|u?int\d|integer", re.IGNORECASE)
_ELSEWHERE = re.compile(r"[Aa]rguments\b[^.;]* are\b[^.;]*`[\w.]+`")
_ENTRY = re.compile(r"^( *)([\w*, .`]+?)(?: \([^)]*\))?:", re.MULTILINE)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def findings() -> Iterator[str]:
    """One line for every rule that a public docstring breaks."""
    for module in MODULES:
        for name in names(module):
            if first_home(module, name.name) == module:
                yield from judged(name)


def judged(name: Name) -> Iterator[str]:
    """What one public name lacks."""
    where = f"{name.module}.{name.name}"
    if not name.docstring:
        yield f"{where} ({name.home}) has no docstring"
    elif isinstance(name.node, ast.ClassDef):
        yield from class_findings(name.node, where)
    elif isinstance(name.node, Function):
        yield from function_findings(name.node, where, name.docstring)


def class_findings(node: ast.ClassDef, where: str) -> Iterator[str]:
    """What a class, its fields and its public methods lack."""
    inherited = {name for base in bases(node) for name in methods_of(base)}
    text = ast.get_docstring(node) or ""
    methods = {item.name: item for item in node.body if isinstance(item, Function) and not is_overload(item)}
    documented = entries(text, "Args").keys() | entries(text, "Attributes").keys() | words(text)
    if "__init__" in methods:
        own = ast.get_docstring(methods["__init__"]) or ""
        if not described_elsewhere(text):
            yield from parameter_findings(
                methods["__init__"], where, documented | entries(own, "Args").keys() | words(own)
            )
        yield from raise_findings(methods["__init__"], where, text + "\n\n" + own)
    else:
        described = {assigned for assigned, below in fields(node) if below}
        for field in sorted({assigned for assigned, _ in fields(node)} - described - documented):
            yield f"{where}: the field {field} is not described"
    for method in methods.values():
        if not method.name.startswith("_") and method.name not in inherited:
            yield from function_findings(method, f"{where}.{method.name}", ast.get_docstring(method) or "")


def function_findings(node: Function, where: str, text: str) -> Iterator[str]:
    """What the docstring of a function or method lacks."""
    if not text:
        if not is_inherited(node):
            yield f"{where} has no docstring"
        return
    if not described_elsewhere(text):
        yield from parameter_findings(node, where, entries(text, "Args").keys() | words(text))
        yield from array_findings(node, where, text)
    returns = ast.unparse(node.returns) if node.returns else "None"
    plain = not _DOES.match(text) or (is_method(node) and "\n\n" not in text)
    silent = returns in ("None", "NoReturn", "Self") or is_property(node) or plain
    if not silent and not {"Returns", "Yields"} & sections(text).keys():
        yield f"{where} has no Returns"
    yield from raise_findings(node, where, text)


def parameter_findings(node: Function, where: str, documented: set[str]) -> Iterator[str]:
    """Parameters that no `Args:` names."""
    for parameter in parameters(node):
        if parameter not in documented:
            yield f"{where}: the parameter {parameter} is not described"


def array_findings(node: Function, where: str, text: str) -> Iterator[str]:
    """Arrays whose form nothing says."""
    said = entries(text, "Args")
    for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
        is_array = arg.annotation is not None and ast.unparse(arg.annotation).startswith("NDArray")
        if is_array and not _FORM.search(said.get(arg.arg, "") + text.split("\n\n")[0]):
            yield f"{where}: nothing says what shape or type the array {arg.arg} has"


def raise_findings(node: Function, where: str, text: str) -> Iterator[str]:
    """Exceptions raised in the body itself that no `Raises:` names."""
    said = sections(text).get("Raises", "")
    for error in sorted(raised(node)):
        if not re.search(rf"\b{error}\b", said):
            yield f"{where}: raises {error}, and does not say when"


def raised(node: Function) -> set[str]:
    """Names of the exceptions that stand behind a `raise` in the body, functions inside it left out."""
    found = set()
    waiting: list[ast.AST] = list(node.body)
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, Function | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(inner, ast.Raise) and inner.exc is not None:
            error = inner.exc.func if isinstance(inner.exc, ast.Call) else inner.exc
            name = ast.unparse(error).rsplit(".", 1)[-1]
            if name[0].isupper() and name not in ("NotImplementedError", "SystemExit", "Exit"):
                found.add(name)
        caught = inner.body if isinstance(inner, ast.Try) and inner.handlers else []
        waiting += [child for child in ast.iter_child_nodes(inner) if child not in caught]
    return found


def parameters(node: Function) -> list[str]:
    """Names of the parameters that a caller gives."""
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    every += [extra for extra in (node.args.vararg, node.args.kwarg) if extra]
    return [arg.arg for arg in every if arg.arg not in ("self", "cls") and not arg.arg.startswith("_")]


def fields(node: ast.ClassDef) -> Iterator[tuple[str, bool]]:
    """Public fields of a class body, each with whether a string below it describes it."""
    for at, item in enumerate(node.body):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            hidden = item.target.id.startswith("_") or "ClassVar" in ast.unparse(item.annotation)
            below = at + 1 < len(node.body) and bool(text_of(node.body[at + 1]))
            if not hidden:
                yield item.target.id, below


def sections(text: str) -> dict[str, str]:
    """The sections of a Google-style docstring by name."""
    return {match[1]: match[2] for match in _SECTION.finditer(text)}


def entries(text: str, section: str) -> dict[str, str]:
    """The names that a section describes, each with what it says."""
    body = sections(text).get(section, "")
    found = list(_ENTRY.finditer(body))
    least = min((len(match[1]) for match in found), default=0)
    found = [match for match in found if len(match[1]) == least]
    ends = [*(match.start() for match in found[1:]), len(body)][: len(found)]
    return {
        name.strip(" *`"): body[match.end() : end]
        for match, end in zip(found, ends, strict=True)
        for name in match[2].split(",")
    }


def words(text: str) -> set[str]:
    """The words of a docstring before its sections, and those of its `Returns:`."""
    return set(re.findall(r"\w+", _SECTION.sub("", text) + sections(text).get("Returns", "")))


def described_elsewhere(text: str) -> bool:
    """Whether a docstring refers to another one for the arguments."""
    return bool(_ELSEWHERE.search(" ".join(text.split())))


def bases(node: ast.ClassDef) -> Iterator[ast.ClassDef]:
    """Public base classes, and public protocols all of whose methods the class has."""
    own = methods_of(node) | {field for field, _ in fields(node)}
    for other in (name.node for module in MODULES for name in names(module)):
        if isinstance(other, ast.ClassDef) and other is not node:
            is_protocol = "Protocol" in map(base_name, other.bases) and methods_of(other)
            if other.name in map(base_name, node.bases) or (is_protocol and methods_of(other) <= own):
                yield other


def methods_of(node: ast.ClassDef) -> set[str]:
    """Names of the methods that a class defines."""
    return {item.name for item in node.body if isinstance(item, Function)}


def base_name(base: ast.expr) -> str:
    """The bare name of a base class."""
    return ast.unparse(base.value if isinstance(base, ast.Subscript) else base).rsplit(".", 1)[-1]


def decorators(node: Function) -> set[str]:
    """Dotted names of the decorators."""
    return {ast.unparse(item.func if isinstance(item, ast.Call) else item) for item in node.decorator_list}


def is_method(node: Function) -> bool:
    """Whether it belongs to a class, or to its instances."""
    first = [*node.args.posonlyargs, *node.args.args][:1]
    return bool(first) and first[0].arg in ("self", "cls")


def is_property(node: Function) -> bool:
    """Whether it is read like an attribute."""
    return bool(decorators(node) & {"property", "cached_property", "functools.cached_property"})


def is_overload(node: Function) -> bool:
    """Whether it is one of several signatures only."""
    return bool(decorators(node) & {"overload", "typing.overload"})


def is_inherited(node: Function) -> bool:
    """Whether its base class describes it."""
    return "override" in {name.rsplit(".", 1)[-1] for name in decorators(node)}
