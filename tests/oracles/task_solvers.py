"""Solvers of the synthetic tasks, token by token from the input alone: position of each question → its answer."""


def solve_recall(tokens: list[int], keys: int) -> dict[int, int]:
    """A key that is new is told its value by the next token; a key that is known is a question."""
    memory: dict[int, int] = {}
    answers: dict[int, int] = {}
    for position, token in enumerate(tokens):
        if token >= keys:
            continue
        if token in memory:
            answers[position] = memory[token]
        else:
            memory[token] = tokens[position + 1]
    return answers


def solve_rebinding(tokens: list[int], keys: int, pairs: int) -> dict[int, int]:
    """The first pairs of a document bind their keys; each further key asks; <eos> empties the memory."""
    none, eos = 2 * keys, 2 * keys + 1
    memory: dict[int, int] = {}
    answers: dict[int, int] = {}
    bound = 0
    for position, token in enumerate(tokens):
        if token == eos:
            memory, bound = {}, 0
        elif token < keys and bound < pairs:
            memory[token] = tokens[position + 1]
            bound += 1
        elif token < keys:
            answers[position] = memory.get(token, none)
    return answers


def solve_copying(tokens: list[int], symbols: int) -> dict[int, int]:
    """Symbols queue up; each marker takes the first of the queue."""
    queue: list[int] = []
    answers: dict[int, int] = {}
    for position, token in enumerate(tokens):
        if token < symbols:
            queue.append(token)
        elif token == symbols + 1:
            answers[position] = queue.pop(0)
    assert not queue
    return answers


def solve_compression(tokens: list[int], symbols: int) -> dict[int, int]:
    """Symbols are written down up to the compression token; then each token names a place."""
    end = tokens.index(symbols)
    places = {symbols + 1 + place: token for place, token in enumerate(tokens[:end])}
    return {position: places.pop(token) for position, token in enumerate(tokens) if position > end}
