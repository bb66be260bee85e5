"""The words the sentiment model knows, with their weight."""

from collections.abc import Mapping
from typing import Final


def _weighed(strong: str, plain: str, weak: str) -> dict[str, float]:
    return {
        word: weight for weight, line in ((2.0, strong), (1.0, plain), (0.5, weak)) for word in line.split()
    }


GOOD: Final[Mapping[str, float]] = _weighed(
    strong="amazing awesome brilliant excellent fantastic incredible love loved loves magnificent outstanding perfect "
    "superb terrific wonderful "
    "太棒 棒极了 完美 超赞 惊艳 一流 卓越 热爱 挚爱 极好 出色 优秀 精彩 赞不绝口 爱不释手",
    plain="beautiful best charming cheerful clean comfortable delicious delight delighted delightful easy effective "
    "elegant enjoy enjoyed enjoyable fast friendly fun generous glad good grateful great happy helpful impressed "
    "impressive interesting joy kind liked lovely nice pleasant pleased pleasure polite recommend recommended reliable "
    "satisfied smooth success successful superior thank thanks useful win worth worthwhile "
    "好 好吃 好看 好用 好听 不错 喜欢 开心 高兴 快乐 幸福 满意 推荐 漂亮 美丽 舒服 舒适 干净 方便 实惠 热情 友好 "
    "有趣 感谢 感动 值得 划算 赞 棒 爱 美味 细心 耐心 周到 流畅 清晰 可靠 成功 顺利 给力 良心 物超所值",
    weak="acceptable decent fair fine like ok okay quiet safe solid well "
    "还行 还可以 可以 凑合 安静 安全 合理 稳定 便宜",
)

BAD: Final[Mapping[str, float]] = _weighed(
    strong="abysmal appalling atrocious awful disgusting dreadful hate hated hates horrible horrific terrible useless "
    "worst "
    "垃圾 极差 太差 恶心 讨厌 憎恨 痛恨 糟透了 最差 骗子 骗人 恶劣 可恶",
    plain="angry annoyed annoying bad boring broken broke bug bugs cold complain confusing crash crashed crashes dirty "
    "disappoint disappointed disappointing disappointment dislike expensive fail failed fails failure fake faulty "
    "frustrated frustrating mess noisy overpriced pain painful poor poorly problem problems regret rude sad scam sick "
    "slow stupid trouble ugly unhappy unpleasant upset waste wasted weak worse worthless wrong "
    "差 坏 坏了 烂 糟糕 难吃 难看 难用 难听 失望 生气 愤怒 难过 伤心 痛苦 后悔 投诉 退货 退款 贵 太贵 慢 脏 吵 "
    "臭 假 假货 破 无聊 麻烦 崩溃 卡顿 浪费 差劲 敷衍 冷漠 失败 故障 问题 不满 坑 坑人 上当 欺骗",
    weak="average delay delayed hard late lack lacks mediocre missing tired "
    "一般 勉强 拖延 迟到 缺少 复杂 普通",
)

INTENSIFIERS: Final[Mapping[str, float]] = {
    "absolutely": 1.8, "completely": 1.6, "deeply": 1.5, "extremely": 1.8, "highly": 1.5, "incredibly": 1.8,
    "really": 1.5, "so": 1.3, "such": 1.2, "too": 1.2, "totally": 1.6, "truly": 1.5, "very": 1.5,
    "barely": 0.5, "fairly": 0.8, "kinda": 0.6, "little": 0.5, "rather": 0.8, "slightly": 0.5, "somewhat": 0.6,
    "十分": 1.5, "非常": 1.8, "极其": 1.8, "极": 1.6, "很": 1.5, "太": 1.5, "特别": 1.6, "超级": 1.7, "超": 1.5,
    "真": 1.4, "真的": 1.4, "相当": 1.4, "最": 1.8, "更": 1.2, "挺": 1.2,
    "有点": 0.6, "有点儿": 0.6, "有些": 0.6, "稍微": 0.5, "略": 0.5, "比较": 0.8,
}  # fmt: skip

NEGATORS: Final = frozenset({
    "cannot", "hardly", "neither", "never", "no", "nor", "not", "without",
    "不", "不是", "不太", "不怎么", "没", "没有", "没什么", "毫不", "毫无", "并不", "从不", "别", "无", "未", "并非",
})  # fmt: skip
