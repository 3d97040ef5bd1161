"""The words of a batch that is looked at, in English and Chinese."""

from ayllu.data.masks import NOTES

WORDS = {
    "title": ("What the model will see", "模型将会看到什么"),
    "intro": ("One training batch, read back from its tensors. Above, what each place is given; below, what it must "
              "predict. Where there is only a dot, nothing is learned.",
              "一个训练批次，直接从张量读回。上面一行是每个位置得到的词元，下面一行是它必须预测的词元；只有一个点的位置不参与学习。"),
    "windows": ("plain windows of the running text: every place sees all before it, across documents too",
                "连续文本的普通窗口：每个位置能看到它之前的一切，也会跨越文档边界"),
    "packed": ("whole documents, packed by best fit: no place sees another document",
               "整篇文档，最佳适配装箱：任何位置都看不到其他文档"),
    "step": ("step {0}", "第 {0} 步"),
    "size": ("{0} rows of {1} places", "{0} 行，每行 {1} 个位置"),
    "learned": ("{0:.1%} of all places are learned", "{0:.1%} 的位置参与学习"),
    "filled": ("{0:.2%} filled", "已填充 {0:.2%}"),
    "corpus": ("{0:,} windows in all, {1:,} documents split, {2:,} too short to teach",
               "共 {0:,} 个窗口，{1:,} 篇文档被切分，{2:,} 篇太短而无法学习"),
    "row": ("Row {0}", "第 {0} 行"),
    "padding": ("{0} empty places", "{0} 个空位置"),
    "document": ("document {0}", "文档 {0}"),
    "stretch": ("a document or a part of one", "一篇文档或其中一段"),
    "count": ("{0} of {1} places learned", "{1} 个位置中 {0} 个参与学习"),
    "two_way": ("the first {0} see each other both ways", "前 {0} 个位置双向可见"),
    "gives": ("is given", "得到"),
    "predicts": ("predicts", "预测"),
    "attention": ("who sees whom: rows look at columns", "谁看谁：行看列"),
    "text": ("text", "文本"),
    "border": ("border of a document", "文档边界"),
    "mark": ("mask, sentinel, mode or infilling mark", "掩码、哨兵、模式或填空标记"),
    "replaced": ("replaced by another token", "被换成别的词元"),
    "target": ("learned: counts in the loss", "参与学习：计入损失"),
    "theme": ("light / dark", "浅色 / 深色"),
    "rest": ("… and {0} more places", "……还有 {0} 个位置"),
}

NOTE_WORDS = {
    "too_short": (NOTES["too_short"], "片段太短，不适合其目标，按因果方式处理"),
    "fewer_spans": (NOTES["fewer_spans"], "片段比要求的更长：一个片段最多 99 段，每段用一个哨兵，最后一个用于收尾"),
    "nothing_hidden": (NOTES["nothing_hidden"], "短片段碰巧没有隐藏任何词元，因此没有可学的内容"),
    "no_room": (NOTES["no_room"], "掩码后的片段放不进窗口，按因果方式处理"),
}
