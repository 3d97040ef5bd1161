"""What the model is told, in the language of the text. What people wrote stands in the user's turn, by its name."""

from collections.abc import Sequence

from ayllu.apps.write.brief import Brief

KINDS = {
    "en": {"article": "an article", "story": "a story", "poem": "a poem", "product": "a product description",
           "post": "a post for social media", "dialogue": "a dialogue"},
    "zh": {"article": "一篇文章", "story": "一个故事", "poem": "一首诗", "product": "一段产品介绍",
           "post": "一条社交媒体帖子", "dialogue": "一段对话"},
}
UNIT = {"en": "words", "zh": "字"}
PLAN = {                                                 # where the model gives no outline: parts that any text has
    "en": {"article": ("{topic}", "Background", "What matters", "An example", "What follows"),
           "story": ("The beginning", "A change", "The turning point", "The end"),
           "dialogue": ("They meet", "They disagree", "They part")},
    "zh": {"article": ("{topic}", "背景", "要点", "一个例子", "展望"),
           "story": ("开端", "变化", "转折", "结局"), "dialogue": ("相遇", "争论", "告别")},
}
PART = {"en": "Part {n}", "zh": "第{n}部分"}
ACTIONS = {
    "en": {"rewrite": "Rewrite the text in other words. Keep its meaning.",
           "shorten": "Shorten the text to about half. Keep what matters.",
           "expand": "Expand the text to about twice its length with details. Keep its meaning.",
           "continue": "Continue the text where it ends. Do not repeat it.",
           "tone": "Rewrite the text in this tone: {tone}. Keep its meaning.",
           "titles": "Give {n} titles for the text, one per line, without numbers."},
    "zh": {"rewrite": "用别的话改写下面的文字，保持原意。", "shorten": "把下面的文字缩短到大约一半，保留要点。",
           "expand": "把下面的文字扩写到大约两倍，补充细节，保持原意。",
           "continue": "接着下面的文字往下写，不要重复原文。", "tone": "用“{tone}”的语气改写下面的文字，保持原意。",
           "titles": "为下面的文字起{n}个标题，每行一个，不要编号。"},
}
SAYS = {
    "en": {"outline": "Plan {kind} about the topic below. Give {n} headings, one per line, and nothing else.",
           "whole": "Write {kind} about the topic below, about {length} {unit}. Write the text only, without a title.",
           "section": "You are writing {kind} about the topic below. Write only the section “{heading}”, about "
                      "{length} {unit}, without its heading.",
           "more": "Go on with the section “{heading}” where it ends, about {length} {unit} more. Do not repeat it.",
           "topic": "Topic", "audience": "For", "tone": "Tone", "points": "Must be covered", "forbidden":
           "Words that must not occur", "outline_is": "All sections", "before": "The text so far ends with", "text":
           "Text", "wish": "Wish"},
    "zh": {"outline": "为下面的主题规划{kind}。给出{n}个小标题，每行一个，不要写别的。",
           "whole": "围绕下面的主题写{kind}，大约{length}{unit}。只写正文，不要标题。",
           "section": "你正在围绕下面的主题写{kind}。只写“{heading}”这一节，大约{length}{unit}，不要写小标题。",
           "more": "接着“{heading}”这一节的结尾往下写，大约再写{length}{unit}，不要重复。",
           "topic": "主题", "audience": "读者", "tone": "语气", "points": "必须写到", "forbidden": "不得出现的词",
           "outline_is": "全部小节", "before": "前文的结尾", "text": "文字", "wish": "要求"},
}

SMALL_MODEL = ("note: {model} is too small to write texts that are meant to be used. Of 40 briefs with two "
               "points each ayllu-mini-chat reached the length of 35 %, spoke of 4 % of the points, and met all checks "
               "of none (benchmarks/write.py). Take an instruction model of 7 billion parameters or more (--model).")


def told(language: str, instruction: str, facts: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """One turn: what to do, then what people gave, each under its name. Facts that are empty are left out."""
    lines = [f"{SAYS[language][name]}: {value}" for name, value in facts if value]
    return [{"role": "user", "content": "\n".join([instruction, "", *lines])}]


def facts_of(brief: Brief, points: Sequence[str] = ()) -> list[tuple[str, str]]:
    """The wishes of a brief that each call repeats."""
    mark = "；" if brief.tongue == "zh" else "; "
    return [("topic", brief.topic), ("audience", brief.audience), ("tone", brief.tone),
            ("points", mark.join(points)), ("forbidden", mark.join(brief.forbidden))]
