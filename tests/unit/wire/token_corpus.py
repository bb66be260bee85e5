"""Texts of several kinds, written for these tests, to hold the token estimate against a real tokenizer."""

ENGLISH = {
    "manual": (
        "A limit is an amount per window of requests, tokens or money, or a number of concurrent calls. All limits that "
        "apply must agree, and a refusal takes from none of them. Every refusal names the limit, what is left, and when "
        "it resets, so that whoever reads it knows what to do next. Quota counters are rebuilt at start from the usage "
        "table."
    ),
    "letter": (
        "Dear Margaret, thank you for the photographs from the lake. The children laughed so much about the one with "
        "the goose that we had to put it on the kitchen door. We hope to visit you in October, when the leaves have "
        "turned and the road over the pass is still open. Tell your brother that his old boat floats again!"
    ),
    "news": (
        "The city council voted on Tuesday to extend the tram line to the harbour, ending eleven years of debate. "
        "Construction is expected to cost 240 million and to begin in the spring. Residents of the northern district "
        "complained about noise, while shop owners welcomed the decision as a chance for the neighbourhood."
    ),
    "talk": (
        "No, wait, I think you misunderstood me. I did not say we should stop, I said we should slow down a little. "
        "What do you think? If everyone is tired, nobody will notice the mistakes, and then we will be doing the whole "
        "thing again next week. Let us have lunch first."
    ),
    "science": (
        "The samples were heated to 350 degrees for two hours and cooled slowly to room temperature. Under the "
        "microscope, the crystals showed clear boundaries, and their average size had grown by a factor of three. "
        "These results suggest that diffusion, rather than pressure, controls the growth of the grains."
    ),
    "story": (
        "The old clock in the hall had stopped again. Every winter it stopped, and every winter her grandfather took "
        "it apart on the dining table, blew the dust from the wheels and swore quietly in a language that nobody else "
        "in the house could speak. By evening it was ticking, and he was smiling."
    ),
}
CHINESE = {
    "manual": (
        "限额是指在一个时间窗口内允许的请求数、令牌数或金额，也可以是同时进行的调用数。所有适用的限额都必须同意，"
        "被拒绝的调用不会占用任何限额。每次拒绝都会说明是哪个限额、还剩多少、什么时候重置，让读到它的人知道下一步该做什么。"
    ),
    "letter": (
        "亲爱的奶奶，您寄来的照片我们都收到了。孩子们看到湖边那只大白鹅，笑了整整一个下午。我们打算十月份去看您，"
        "那时候树叶已经红了，山上的路也还没有封。请告诉叔叔，他的旧木船又能下水了！"
    ),
    "news": (
        "市政府星期二决定把电车线路延长到港口，十一年的争论终于结束。工程预计耗资两亿四千万元，明年春天开工。"
        "北区居民担心噪音，附近商店的老板却认为这是难得的机会。"
    ),
    "talk": (
        "不是，你误会我的意思了。我没说要停下来，我是说咱们慢一点。你觉得呢？大家都累了，出了错谁也看不出来，"
        "下个星期还得重做一遍。先去吃饭吧！"
    ),
    "science": (
        "样品加热到350度，保持两个小时，然后慢慢冷却到室温。在显微镜下可以看到清楚的晶界，平均尺寸增加了三倍。"
        "结果说明，控制晶粒生长的是扩散，而不是压力。"
    ),
    "story": (
        "大厅里的老钟又停了。每年冬天它都会停一次，每年冬天爷爷都把它拆开，放在饭桌上，吹掉齿轮上的灰尘，"
        "嘴里小声说着家里谁也听不懂的话。到了晚上，钟又响了，他也笑了。"
    ),
}
