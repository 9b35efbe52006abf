"""Paragraphs of `format=flowed` text joined again (RFC 3676 section 4). Linear."""


def unflow(text: str, delete_space: bool = False) -> str:
    """`text` with a line for each paragraph.

    A line that ends in a space goes on in the next one of the same quote depth; the space goes when
    the text says `delsp=yes`. A space before a line's text is stuffing.
    """
    out: list[str] = []
    held: list[str] = []  # the lines of the paragraph that goes on
    held_depth = 0
    for line in text.removesuffix("\n").split("\n"):
        words = line.lstrip(">")
        depth = len(line) - len(words)
        if words[:1] == " ":
            words = words[1:]
        if held and depth != held_depth:
            out.append(_quoted(held, held_depth))
            held = []
        if words == "-- ":  # a signature begins (section 4.3), which is no flowed line
            if held:
                out.append(_quoted(held, held_depth))
                held = []
            out.append(_quoted([words], depth))
            continue
        held_depth = depth
        if words[-1:] == " ":
            held.append(words[:-1] if delete_space else words)
            continue
        held.append(words)
        out.append(_quoted(held, depth))
        held = []
    if held:
        out.append(_quoted(held, held_depth))
    if text[-1:] == "\n":
        out.append("")
    return "\n".join(out)


def _quoted(pieces: list[str], depth: int) -> str:
    words = "".join(pieces)
    return f"{'>' * depth} {words}" if depth and words else f"{'>' * depth}{words}"
