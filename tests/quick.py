"""The smallest recipe that still does everything, as flags or overrides."""

QUICK = {
    "text.encoder": "tfidf-svd",
    "text.collaborative_width": 16,
    "model.hidden_size": 32,
    "model.layers": 1,
    "model.heads": 2,
    "model.feed_forward": 64,
    "training.epochs": 2,
    "training.learning_rate": 1e-2,
    "training.batch_tokens": 2048,
    "training.validation_users": 60,
    "decoding.beam_width": 20,
    "evaluation.max_questions": 60,
}
