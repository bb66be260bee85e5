"""Classify images of handwritten digits with scikit-learn, trained on its bundled digits while the worker starts.

pip install scikit-learn
lingpai serve examples/sklearn_digits.py

An image is eight rows of eight numbers from 0 (white) to 16 (black), here a zero:

lingpai run acme/digits --input-json '[
  [0, 0,  5, 13,  9,  1, 0, 0],
  [0, 0, 13, 15, 10, 15, 5, 0],
  [0, 3, 15,  2,  0, 11, 8, 0],
  [0, 4, 12,  0,  0,  8, 8, 0],
  [0, 5,  8,  0,  0,  9, 8, 0],
  [0, 4, 11,  0,  1, 12, 7, 0],
  [0, 2, 14,  5, 10, 12, 0, 0],
  [0, 0,  6, 13, 10,  0, 0, 0]]'
"""

import lingpai as lp

SIZE = 8


@lp.model("acme/digits", task="image-classification", description="Handwritten digits, 8 by 8 pixels")
class Digits:
    def load(self, context):
        # Here and not above: `load` runs once in the worker, and importing scikit-learn takes a second.
        from sklearn.datasets import load_digits  # noqa: PLC0415
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

        images, labels = load_digits(return_X_y=True)
        self.classifier = RandomForestClassifier(random_state=0).fit(images, labels)
        context.logger.info("trained on %d images", len(labels))

    def __call__(self, image: list[list[float]], *, top: int = 10):
        if len(image) != SIZE or any(len(row) != SIZE for row in image):
            raise lp.InputError(f"An image has {SIZE} rows of {SIZE} numbers.", param="input")
        pixels = [value for row in image for value in row]
        (scores,) = self.classifier.predict_proba([pixels])
        ranked = sorted(zip(self.classifier.classes_, scores, strict=True), key=lambda pair: -pair[1])
        return [{"label": str(label), "score": score} for label, score in ranked[:top]]
