"""What a vLLM server is asked for: all that decides a draw, so that none of its model's defaults do."""

from engines import Sampling


def test_a_request_leaves_no_default_to_the_server(tiny_tokenizer, tmp_path, monkeypatch):
    asked = []

    def call(self, method, path, body=None):
        if path == "/v1/models":
            return {"data": [{"id": "policy", "max_model_len": 64}]}
        asked.append(body)
        choice = {
            "index": 0,
            "token_ids": [5],
            "finish_reason": "length",
            "logprobs": {"token_logprobs": [-1.0]},
        }
        return {"choices": [choice]}

    monkeypatch.setattr(VLLMEngine, "_call", call)
    engine = VLLMEngine("http://127.0.0.1:9", tiny_tokenizer, weights_dir=tmp_path)
    engine.generate([[5, 6]], Sampling(max_new_tokens=4, temperature=0.7, top_p=0.9), seed=1, rows=[0])
    engine.close()
    neutral = {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "ignore_eos": True,
        "stop_token_ids": [1],
    }
    assert {name: asked[0].get(name) for name in neutral} == neutral
