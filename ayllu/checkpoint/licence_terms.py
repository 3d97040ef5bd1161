"""What the licences of common weights ask, in plain words, English and Chinese. A summary for people, not legal advice.

Read at github.com/meta-llama: Llama 2 (2023-07-18), 3 (2024-04-18), 3.1 (2024-07-23) and 3.2 (2024-09-25).
"""

from typing import Any

_META_EN = (
    "Pass on a copy of the licence with the weights or anything made from them.",
    "Follow the Acceptable Use Policy: among others no law-breaking, weapons, self-harm, fake reviews, spam, "
    "impersonation, unlicensed professional advice, or inferring sensitive data about people without consent; tell "
    "users of known dangers.",
    "If you and your affiliates had more than 700 million monthly users in the month before the release date ({date}), "
    "you need a separate licence from Meta.",
    "No right to Meta's trademarks beyond what the licence asks for; no warranty; suing over these rights ends the "
    "licence.",
)
_META_ZH = (
    "分发权重或由其制作的任何东西时，须附上许可证副本。",
    "遵守可接受使用政策：例如不得违法、不得用于武器或自残、不得制造虚假评论或垃圾信息、不得冒充他人、不得无证提供专业建议、"
    "不得未经同意推断他人的敏感信息；须告知用户已知的风险。",
    "若您及关联公司在发布日期（{date}）前一个月的月活跃用户超过 7 亿，须向 Meta 另行申请许可。",
    "除许可证要求的用法外，不授予 Meta 商标权；不提供任何担保；就相关权利提起诉讼会使许可终止。",
)


def _meta(name: str, date: str, url: str, notice: str, en: tuple[str, ...], zh: tuple[str, ...]) -> dict[str, Any]:
    keep = f"Keep a text file called Notice with the sentence: {notice}"
    keep_zh = f"保留名为 Notice 的文本文件，内容为：{notice}"
    return {"name": name, "url": url, "notice": notice,
            "duties_en": (_META_EN[0], keep, *en, *(line.format(date=date) for line in _META_EN[1:])),
            "duties_zh": (_META_ZH[0], keep_zh, *zh, *(line.format(date=date) for line in _META_ZH[1:]))}


def _built_with(sentence: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    en = (f'Show "{sentence}" on the website, interface or product page where the model is used.',
          'A model that you train, fine-tune or improve with these weights or their output, and pass on, must have a '
          'name that begins with "Llama".')
    zh = (f"在使用该模型的网站、界面或产品页面上显示“{sentence}”。",
          "用这些权重或其输出训练、微调或改进并对外提供的模型，名称必须以“Llama”开头。")
    return en, zh


_NO_OTHER_EN = ("Do not use the weights or their output to improve any other large language model ({family} and what "
                "is derived from it excepted).")
_NO_OTHER_ZH = "不得用这些权重或其输出改进任何其他大语言模型（{family} 及其衍生模型除外）。"
_META_URL = "https://www.llama.com/"


def _llama3_notice(version: str) -> str:
    return (f"Llama {version} is licensed under the Llama {version} Community License, Copyright © Meta Platforms, "
            "Inc. All Rights Reserved.")


def _llama3_family(version: str, date: str) -> dict[str, Any]:
    en, zh = _built_with("Built with Llama")
    return _meta(f"Llama {version} Community License", date, f"{_META_URL}llama{version.replace('.', '_')}/license/",
                 _llama3_notice(version), en, zh)


_ATTRIBUTION = (("Name the authors and the licence, link to it, and say what you changed.",),
                ("注明作者和许可证、附上链接，并说明所作的修改。",))
_SHARE_ALIKE = (("Pass on what you make from it under the same licence.",), ("由其制作的内容须以相同许可证分发。",))
_NO_COMMERCE = (("Do not use it for commercial purposes.",), ("不得用于商业目的。",))


def _creative(name: str, url: str, *parts: tuple[tuple[str, ...], tuple[str, ...]]) -> dict[str, Any]:
    return {"name": name, "url": f"https://creativecommons.org/{url}/",
            "duties_en": tuple(line for en, _ in parts for line in en),
            "duties_zh": tuple(z for _, zh in parts for z in zh)}


def _free(name: str, url: str, en: tuple[str, ...], zh: tuple[str, ...]) -> dict[str, Any]:
    return {"name": name, "url": url, "duties_en": en, "duties_zh": zh}


_KEEP = (("Keep the copyright and licence text with copies.",), ("副本须保留版权声明和许可证文本。",))

TERMS: dict[str, dict[str, Any]] = {
    "llama2": _meta(
        "Llama 2 Community License", "2023-07-18", _META_URL + "llama2/license/",
        "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta Platforms, Inc. All Rights "
        "Reserved.",
        (_NO_OTHER_EN.format(family="Llama 2"),), (_NO_OTHER_ZH.format(family="Llama 2"),)),
    "llama3": _meta(
        "Meta Llama 3 Community License", "2024-04-18", _META_URL + "llama3/license/",
        "Meta Llama 3 is licensed under the Meta Llama 3 Community License, Copyright © Meta Platforms, Inc. All "
        "Rights Reserved.",
        ('Show "Built with Meta Llama 3" where the model is used; the name of a derived model begins with "Llama 3".',
         _NO_OTHER_EN.format(family="Llama 3")),
        ("在使用处显示“Built with Meta Llama 3”；衍生模型的名称须以“Llama 3”开头。",
         _NO_OTHER_ZH.format(family="Llama 3"))),
    "llama3.1": _llama3_family("3.1", "2024-07-23"),
    "llama3.2": _llama3_family("3.2", "2024-09-25"),
    "llama3.3": _llama3_family("3.3", "2024-12-06"),
    "apache-2.0": _free("Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0",
                        (*_KEEP[0], "Keep a NOTICE file if there is one, and say in changed files that you changed "
                                    "them."),
                        (*_KEEP[1], "若有 NOTICE 文件须保留，并在修改过的文件中注明修改。")),
    "mit": _free("MIT License", "https://opensource.org/license/mit", *_KEEP),
    "bsd-3-clause": _free("BSD 3-Clause License", "https://opensource.org/license/bsd-3-clause",
                          (*_KEEP[0], "Do not use the authors' names to advertise."),
                          (*_KEEP[1], "不得用作者姓名作宣传。")),
    "cc0-1.0": _creative("CC0 1.0", "publicdomain/zero/1.0",
                         (("Nothing: it is given to the public.",), ("无：已贡献给公众。",))),
    "cc-by-4.0": _creative("CC BY 4.0", "licenses/by/4.0", _ATTRIBUTION),
    "cc-by-sa-3.0": _creative("CC BY-SA 3.0", "licenses/by-sa/3.0", _ATTRIBUTION, _SHARE_ALIKE),
    "cc-by-sa-4.0": _creative("CC BY-SA 4.0", "licenses/by-sa/4.0", _ATTRIBUTION, _SHARE_ALIKE),
    "cc-by-nc-4.0": _creative("CC BY-NC 4.0", "licenses/by-nc/4.0", _ATTRIBUTION, _NO_COMMERCE),
    "cc-by-nc-sa-4.0": _creative("CC BY-NC-SA 4.0", "licenses/by-nc-sa/4.0", _ATTRIBUTION, _SHARE_ALIKE, _NO_COMMERCE),
}
"""By the hub's licence ids."""

TITLES: tuple[tuple[str, str], ...] = (
    ("LLAMA 3.3 COMMUNITY LICENSE", "llama3.3"), ("LLAMA 3.2 COMMUNITY LICENSE", "llama3.2"),
    ("LLAMA 3.1 COMMUNITY LICENSE", "llama3.1"), ("META LLAMA 3 COMMUNITY LICENSE", "llama3"),
    ("LLAMA 2 COMMUNITY LICENSE", "llama2"), ("APACHE LICENSE", "apache-2.0"), ("MIT LICENSE", "mit"),
    ("CC0 1.0 UNIVERSAL", "cc0-1.0"), ("ATTRIBUTION-NONCOMMERCIAL-SHAREALIKE 4.0", "cc-by-nc-sa-4.0"),
    ("ATTRIBUTION-NONCOMMERCIAL 4.0", "cc-by-nc-4.0"), ("ATTRIBUTION-SHAREALIKE 4.0", "cc-by-sa-4.0"),
    ("ATTRIBUTION-SHAREALIKE 3.0", "cc-by-sa-3.0"), ("ATTRIBUTION 4.0 INTERNATIONAL", "cc-by-4.0"),
)
"""What stands near the top of a licence text, the more exact title first."""
