"""The words beside each step of a walk, in English and Chinese."""

from typing import NamedTuple


def readable(piece: str) -> str:
    """A piece as people can read it: spaces and line ends shown, control characters spelled out."""
    shown = piece.replace("▁", "·").replace(" ", "·").replace("\n", "⏎")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown) or "∅"


class Words(NamedTuple):
    """A title and one or two sentences, in both languages."""

    title: str
    title_zh: str
    note: str
    note_zh: str


STEPS = {
    "ids": Words(
        "The text becomes ids", "文本变成编号",
        "The tokenizer cuts the text into pieces of its vocabulary. The model sees only their numbers.",
        "分词器把文本切成词表里的片段。模型只看得到它们的编号。"),
    "embedding": Words(
        "Each id becomes a vector", "每个编号变成一个向量",
        "A look-up: row id of the embedding matrix. Equal tokens have equal vectors here; nothing knows its place yet.",
        "查表：取嵌入矩阵的第 id 行。相同的词元在这里有相同的向量，还不知道自己的位置。"),
    "angles": Words(
        "Positions are angles", "位置就是角度",
        "Rotary positions: each pair of features of q and k will turn by position × frequency. "
        "The first pairs turn fast, the last ones hardly at all.",
        "旋转位置编码：q 和 k 的每一对特征按“位置 × 频率”旋转。前面的对转得快，后面的几乎不动。"),
    "sinusoids": Words(
        "Positions are added", "加上位置编码",
        "Each position has its own pattern of sines and cosines, which is added to the embedding.",
        "每个位置有自己的正弦、余弦图样，直接加到嵌入上。"),
    "attention_norm": Words(
        "Norm around attention", "注意力的归一化",
        "Brings each token's vector to a common size, so that layers of any depth see numbers of the same scale.",
        "把每个词元的向量调到相同的大小，不论多深的层看到的数值尺度都一样。"),
    "qkv": Words(
        "Queries, keys and values", "查询、键和值",
        "Three projections of the same vector, cut into heads: what I look for, what I offer, what I pass on.",
        "同一个向量的三个投影，再切成多个头：我在找什么、我能提供什么、我传递什么。"),
    "rotation": Words(
        "Queries and keys turn", "旋转查询和键",
        "After turning, q·k depends on how far two tokens are apart, and not on where they stand.",
        "旋转之后，q·k 只取决于两个词元相距多远，与它们的绝对位置无关。"),
    "weights": Words(
        "Who looks at whom", "谁在看谁",
        "One map per head: a row is a token, its columns are the tokens it looks at, and each row sums to 1. "
        "The fast path never forms these maps; they are recomputed slowly from its own q and k, "
        "and A·v must equal what it gave.",
        "每个头一张图：一行是一个词元，各列是它所看的词元，每行之和为 1。"
        "快速路径从不生成这些图；这里用它自己的 q 和 k 慢慢重算，A·v 必须等于它的结果。"),
    "mixed": Words(
        "Values are mixed", "混合各个值",
        "Each head gives every token a weighted mean of the values it looks at.",
        "每个头给每个词元一个加权平均：它所看的那些值。"),
    "merged": Words(
        "Heads are joined", "合并各个头",
        "The heads' results side by side, through one more matrix, back to the width of the model.",
        "各头的结果并排放好，再乘一个矩阵，回到模型的宽度。"),
    "residual_attention": Words(
        "Added to what was there", "加回原来的向量",
        "The residual path: a layer corrects the vector, it does not replace it.",
        "残差路径：每一层只修正向量，而不是替换它。"),
    "ffn_norm": Words(
        "Norm around the feed-forward part", "前馈部分的归一化",
        "The same scaling again, with weights of its own.",
        "再做一次同样的缩放，权重各自独立。"),
    "feed_forward": Words(
        "Feed-forward", "前馈网络",
        "Each token for itself: widened, passed through a bend that lets it say yes or no, and narrowed again.",
        "每个词元各算各的：先变宽，经过一个可以“开关”的非线性，再变窄。"),
    "residual_feed_forward": Words(
        "Added again", "再次相加",
        "The layer is done; its result is what the next layer reads.",
        "这一层结束了，结果交给下一层。"),
    "layer_norm": Words(
        "Layer norm at the end of the layer", "层末的层归一化",
        "In the literal order the layer ends with its one norm (and dropout, which only training uses).",
        "按字面顺序，每层以唯一的一次归一化结束（还有只在训练时使用的丢弃）。"),
    "layers": Words(
        "All layers, one after the other", "逐层前进",
        "The size (root mean square) of each token's vector after every layer.",
        "每一层之后，各词元向量的大小（均方根）。"),
    "last_norm": Words(
        "The last norm", "最后的归一化",
        "One more norm before the vectors are compared with the vocabulary.",
        "在与词表比较之前，再归一化一次。"),
    "logits": Words(
        "A score for each piece", "给每个片段打分",
        "The last token's vector against every row of the output matrix.",
        "最后一个词元的向量与输出矩阵的每一行相乘。"),
    "distribution": Words(
        "What may come next", "接下来可能是什么",
        "Softmax turns scores into probabilities. Greedy decoding takes the first, sampling draws one of them.",
        "softmax 把分数变成概率。贪心解码取第一个，采样则按概率抽一个。"),
}

PAGE = {
    "title": ("A walk through one run", "走进一次真实的运行"),
    "intro": ("Every number on this page comes from one run of the model. Each step was computed a second time, "
              "slowly, in float64; the largest difference stands beside it.",
              "本页的每个数字都来自模型的一次真实运行。每一步都用 float64 慢速重算了一遍，旁边是最大的差。"),
    "agrees": ("agrees", "一致"),
    "differs": ("DIFFERS", "不一致"),
    "difference": ("largest difference", "最大差"),
    "n_layers": ("{0} layers", "{0} 层"),
    "layer": ("layer {0}", "第 {0} 层"),
    "head": ("head {0}", "第 {0} 个头"),
    "token": ("token", "词元"),
    "first_columns": ("first {0} of {1} columns", "前 {0} 列，共 {1} 列"),
    "all_columns": ("all {0} columns", "全部 {0} 列"),
    "first_heads": ("first {0} of {1} heads", "前 {0} 个头，共 {1} 个"),
    "pick": ("Click a token to see what it looks at.", "点一个词元，看它在看谁。"),
    "theme": ("light / dark", "浅色 / 深色"),
    "position": ("position", "位置"),
}
