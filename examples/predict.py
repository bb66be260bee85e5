"""The smallest thing that can be served: a function of one argument. Nothing here knows of Lingpai.

lingpai serve examples/predict.py:predict
curl localhost:8741/predict -H "Authorization: $LINGPAI_API_KEY" -H 'Content-Type: application/json' -d '{"input_data": "今天天气很好"}'
"""


def predict(input_data):
    """Guess whether a text is Chinese or English."""
    text = str(input_data)
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in text)
    return {"prediction": "Chinese" if chinese * 4 > len(text) else "English"}
