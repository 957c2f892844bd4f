"""Write loops over vectors of floats as LLVM code, and compile them for this machine's processor."""

import ctypes
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

FLOAT, BYTE, INT, OFFSET = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the code that is written: an index, a float or a vector; + and * write operations."""

    builder: ir.IRBuilder
    value: Any

    def _other(self, other: "Value | int") -> Any:
        return other.value if isinstance(other, Value) else ir.Constant(self.value.type, other)

    @property
    def is_integer(self) -> bool:
        """Whether it is an integer, or a vector of them."""
        return isinstance(getattr(self.value.type, "element", self.value.type), ir.IntType)

    def __add__(self, other: "Value | int") -> "Value":
        write = self.builder.add if self.is_integer else self.builder.fadd
        return Value(self.builder, write(self.value, self._other(other)))

    def __mul__(self, other: "Value | int") -> "Value":
        write = self.builder.mul if self.is_integer else self.builder.fmul
        return Value(self.builder, write(self.value, self._other(other)))

    def __rshift__(self, other: "Value | int") -> "Value":
        return Value(self.builder, self.builder.lshr(self.value, self._other(other)))

    def __and__(self, other: "Value | int") -> "Value":
        return Value(self.builder, self.builder.and_(self.value, self._other(other)))

    def __or__(self, other: "Value") -> "Value":
        return Value(self.builder, self.builder.or_(self.value, other.value))

    def convert(self, kind: ir.Type) -> "Value":
        """Return the same numbers, none negative, as shorter or longer integers."""
        # zext fills with 0, which is right only without a sign
        own, new = (getattr(t, "element", t).width for t in (self.value.type, kind))
        return Value(self.builder, (self.builder.zext if new > own else self.builder.trunc)(self.value, kind))


@dataclass(frozen=True, eq=False)
class Array:
    """Numbers in memory.

    Attributes:
        code: that reads and writes them.
        pointer: of the first one.
        element: FLOAT, BYTE or INT.
    """

    code: "VectorCode"
    pointer: Any
    element: ir.Type

    @property
    def alignment(self) -> int:
        """Bytes to a multiple of which a number's address is; a vector may start at any number."""
        return 1 if self.element is BYTE else 4

    def _locate(self, index: "Value | int", lanes: int) -> Any:
        position = index.value if isinstance(index, Value) else ir.Constant(OFFSET, index)
        address = self.code.builder.gep(self.pointer, [position])
        return self.code.builder.bitcast(address, ir.VectorType(self.element, lanes).as_pointer()) if lanes else address

    def load(self, index: "Value | int", lanes: int = 0) -> Value:
        """Read so many neighbours as a vector, or one number."""
        return self.code.wrap(self.code.builder.load(self._locate(index, lanes), align=self.alignment))

    def store(self, index: "Value | int", value: Value) -> None:
        """Write a number, or a vector."""
        lanes = value.value.type.count if isinstance(value.value.type, ir.VectorType) else 0
        self.code.builder.store(value.value, self._locate(index, lanes), align=self.alignment)

    def start_at(self, index: "Value | int", element: ir.Type | None = None) -> "Array":
        """Return the part from an index on; its numbers are read as `element` where that is given."""
        pointer = self._locate(index, 0)
        if element is not None:
            pointer = self.code.builder.bitcast(pointer, element.as_pointer())
        return Array(self.code, pointer, element or self.element)


class VectorCode:
    """One function `void name(arguments)` of 64-bit integers and pointers, written operation by operation.

    Args:
        name: of the function.
        arguments: for each argument its element type where it is a pointer, and OFFSET where it is a number.
    """

    def __init__(self, name: str, arguments: Sequence[ir.Type]):
        self.name, self.module = name, ir.Module(name)
        types = [OFFSET if kind is OFFSET else kind.as_pointer() for kind in arguments]
        self.function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), types), name)
        self.entry = self.function.append_basic_block("entry")
        self.builder = ir.IRBuilder(self.function.append_basic_block("body"))
        self.arguments: list[Any] = [
            self.wrap(value) if kind is OFFSET else Array(self, value, kind)
            for value, kind in zip(self.function.args, arguments, strict=True)
        ]

    def wrap(self, value: Any) -> Value:
        """Make an LLVM value one that + and * work on."""
        return Value(self.builder, value)

    def number(self, value: int) -> Value:
        """Make a constant index."""
        return self.wrap(ir.Constant(OFFSET, value))

    def fill(self, value: float, lanes: int = 0, element: ir.Type = FLOAT) -> Value:
        """Make a constant, or a vector of it."""
        constant = ir.Constant(vector(lanes, element), [value] * lanes) if lanes else ir.Constant(element, value)
        return self.wrap(constant)

    def spread(self, value: Value, lanes: int) -> Value:
        """Make a vector of one number."""
        # LLVM has no broadcast: the number is put into lane 0, and a shuffle takes that lane for each
        kind = ir.VectorType(value.value.type, lanes)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value.value, ir.Constant(INT, 0))
        mask = ir.Constant(ir.VectorType(INT, lanes), [0] * lanes)
        return self.wrap(self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask))

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """Compute a * b + c with one rounding."""
        # an intrinsic of LLVM: llvmlite's own fma takes no vectors
        kind = a.value.type
        lanes = f"v{kind.count}" if isinstance(kind, ir.VectorType) else ""
        name = f"llvm.fma.{lanes}f32"
        function = self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(kind, [kind] * 3), name)
        return self.wrap(self.builder.call(function, [a.value, b.value, c.value]))

    def compare(self, sign: str, a: Value, b: Value) -> Value:
        """Compare floats, false where one is not a number ("uno": true there), or integers."""
        if a.is_integer:
            return self.wrap(self.builder.icmp_signed(sign, a.value, b.value))
        write = self.builder.fcmp_unordered if sign == "uno" else self.builder.fcmp_ordered
        return self.wrap(write(sign, a.value, b.value))

    def select(self, condition: Value, yes: Value, no: Value) -> Value:
        """Choose between two values, lane by lane."""
        return self.wrap(self.builder.select(condition.value, yes.value, no.value))

    def allocate(self, kind: ir.Type) -> Any:
        """Allocate a variable, which the compiler keeps in a register."""
        # In the first block, where the compiler looks for what can be a register.
        with self.builder.goto_block(self.entry):
            return self.builder.alloca(kind)

    @contextmanager
    def loop(self, end: Value | int, step: int = 1) -> Generator[Value, None, None]:
        """Write a loop over 0, step, 2 step, ... below `end`; what is written in the context is its body."""
        last = end.value if isinstance(end, Value) else ir.Constant(OFFSET, end)
        # head: is the counter below the end? body: what the context writes, then one step on
        counter = self.allocate(OFFSET)
        self.builder.store(ir.Constant(OFFSET, 0), counter)
        head, body, after = (self.builder.append_basic_block() for _ in range(3))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        index = self.builder.load(counter)
        self.builder.cbranch(self.builder.icmp_signed("<", index, last), body, after)
        self.builder.position_at_end(body)
        try:
            yield self.wrap(index)
        finally:
            self.builder.store(self.builder.add(index, ir.Constant(OFFSET, step)), counter)
            self.builder.branch(head)
            self.builder.position_at_end(after)

    def variables(self, values: Sequence[Value]) -> "Variables":
        """Make variables with these values, which loops change."""
        return Variables(self, values)

    def clear(self, array: Array, length: Value | int) -> None:
        """Write zeros into the first `length` floats."""
        zero = self.fill(0.0)
        with self.loop(length) as k:
            array.store(k, zero)

    def compile(self) -> "CompiledFunction":
        """Compile the function for this processor; it takes integers and addresses."""
        self.builder.ret_void()
        ir.IRBuilder(self.entry).branch(self.function.blocks[1])
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_default_triple()
        cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        machine = target.create_target_machine(cpu=cpu, features=features, opt=3, jit=True)
        module = llvm.parse_assembly(str(self.module))
        # The code is in vectors already, and these passes take half of the time of all.
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(module, passes)
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()
        signature = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(self.arguments))
        return CompiledFunction(signature(engine.get_function_address(self.name)), engine)


@dataclass(frozen=True)
class CompiledFunction:
    """A compiled function, and the engine that owns its memory."""

    function: Callable[..., None]
    engine: Any

    def __call__(self, *arguments: int) -> None:
        """Call it."""
        self.function(*arguments)


class Variables:
    """Values that loops change; `values` reads them, `set` writes them."""

    def __init__(self, code: VectorCode, values: Sequence[Value]):
        self.code = code
        self.places = [code.allocate(value.value.type) for value in values]
        self.set(values)

    def set(self, values: Sequence[Value]) -> None:
        """Write all of them."""
        for place, value in zip(self.places, values, strict=True):
            self.code.builder.store(value.value, place)

    def __iter__(self) -> Iterator[Value]:
        return iter([self.code.wrap(self.code.builder.load(place)) for place in self.places])


def vector(lanes: int, element: ir.Type = FLOAT) -> ir.VectorType:
    """Return the type of a vector."""
    return ir.VectorType(element, lanes)
