/*
 * recipe_keys.h - every setting of the project: KEY, type, field of struct recipe, default,
 * meaning.
 *
 * Names are the challenge community's environment variables where one exists. Types: INT, NUM
 * (double), STR. The groups decide who knows a key: MODEL and EVAL keys travel inside a submission
 * and are all that the runner is compiled with; TRAIN and QUANT keys matter before packing only.
 */
#define RECIPE_MODEL_KEYS(K)                                                                       \
    K(INT, VOCAB_SIZE, vocab_size, 1024, "pieces of the tokeniser")                                \
    K(INT, NUM_LAYERS, num_layers, 9, "transformer blocks")                                        \
    K(INT, MODEL_DIM, model_dim, 512, "width of the residual stream")                              \
    K(INT, NUM_HEADS, num_heads, 8, "query heads")                                                 \
    K(INT, NUM_KV_HEADS, num_kv_heads, 4, "key/value heads (GQA)")                                 \
    K(NUM, MLP_MULT, mlp_mult, 2, "MLP hidden width / MODEL_DIM, fractions allowed")               \
    K(NUM, MLP_SLOPE, mlp_slope, 0, "MLP activation LeakyReLU(slope)^2; 0 is ReLU^2")              \
    K(INT, TIE_EMBEDDINGS, tie_embeddings, 1, "1: the head is the embedding table")                \
    K(NUM, LOGIT_SOFTCAP, logit_softcap, 30, "logits = cap*tanh(z/cap); 0 switches it off")        \
    K(NUM, ROPE_BASE, rope_base, 10000, "base of the rotary frequencies")                          \
    K(INT, ROPE_DIMS, rope_dims, 0, "rotated dimensions of a head, 0: all (partial RoPE)")         \
    K(INT, ROPE_TRAIN_LEN, rope_train_len, 0,                                                      \
      "length beyond which the base is rescaled; 0: TRAIN_SEQ_LEN, -1: never")                     \
    K(NUM, QK_GAIN_INIT, qk_gain_init, 1.5, "initial gain of the normalised queries")              \
    K(INT, LN_SCALE, ln_scale, 0, "1: norms inside block l are scaled by 1/sqrt(l+1)")             \
    K(INT, UNET_SKIPS, unet_skips, 1, "1: decoder half adds the encoder half's outputs")           \
    K(NUM, RMS_EPS, rms_eps, 1.1920929e-7, "epsilon of every RMS norm")                            \
    K(INT, TRAIN_SEQ_LEN, train_seq_len, 1024, "tokens per training sequence")

#define RECIPE_EVAL_KEYS(K)                                                                        \
    K(STR, EVAL_MODE, eval_mode, "sliding", "default of --eval")                                   \
    K(INT, EVAL_SEQ_LEN, eval_seq_len, 0, "tokens per scored window, 0: TRAIN_SEQ_LEN")            \
    K(INT, EVAL_STRIDE, eval_stride, 64, "step of the sliding window; at most its length")         \
    K(STR, EVAL_WINDOWS, eval_windows, "new",                                                      \
      "sliding window list: new (each token once) or old (as #549, #1263; docs/scoring.md)")

#define RECIPE_TRAIN_KEYS(K)                                                                       \
    K(STR, RUN_ID, run_id, "", "name of the run in the log; default: the recipe's name and seed")  \
    K(STR, DATA_PATH, data_path, "data", "directory with *_train_*.bin and *_val_*.bin")           \
    K(STR, TOKENIZER_PATH, tokenizer_path, "",                                                     \
      "SentencePiece .model; default: *.model in the data")                                        \
    K(INT, SEED, seed, 1337, "seed of initialisation")                                             \
    K(INT, ITERATIONS, iterations, 20000, "optimiser steps")                                       \
    K(NUM, MAX_WALLCLOCK_SECONDS, max_wallclock_seconds, 600, "training stops then; 0: never")     \
    K(INT, TRAIN_BATCH_TOKENS, train_batch_tokens, 524288, "tokens per optimiser step")            \
    K(INT, MICRO_BATCH_TOKENS, micro_batch_tokens, 0,                                              \
      "tokens per forward/backward, 0: chosen (changes memory, and rounding)")                     \
    K(INT, TRAIN_LOG_EVERY, train_log_every, 200, "steps between loss lines in the log")           \
    K(INT, VAL_LOSS_EVERY, val_loss_every, 1000, "steps between validations, 0: only at the end")  \
    K(INT, VAL_MAX_TOKENS, val_max_tokens, 0, "validation uses the first N tokens, 0: all")        \
    K(INT, CHECKPOINT_EVERY, checkpoint_every, 0, "steps between checkpoints, 0: only when asked") \
    K(INT, WARMDOWN_ITERS, warmdown_iters, 1200, "last steps with a falling learning rate")        \
    K(NUM, WARMDOWN_FRAC, warmdown_frac, 0, "the same as a fraction of the run; 0: use ITERS")     \
    K(NUM, MIN_LR, min_lr, 0, "floor of the learning-rate multiplier")                             \
    K(INT, LR_WARMUP_STEPS, lr_warmup_steps, 0, "first steps with a rising learning rate")         \
    K(STR, INIT, init, "uniform", "init of matrices: uniform (torch's linear) or orthogonal")      \
    K(NUM, TIED_EMBED_INIT_STD, tied_embed_init_std, 0.005, "std of the initial embedding")        \
    K(NUM, EMBED_LR, embed_lr, 0.6, "AdamW, embedding when untied")                                \
    K(NUM, HEAD_LR, head_lr, 0.008, "AdamW, head when untied")                                     \
    K(NUM, TIED_EMBED_LR, tied_embed_lr, 0.05, "AdamW, embedding when tied")                       \
    K(NUM, MATRIX_LR, matrix_lr, 0.04, "Muon")                                                     \
    K(NUM, SCALAR_LR, scalar_lr, 0.04, "AdamW, scales, gains, mixes")                              \
    K(NUM, MUON_WD, muon_wd, 0, "decoupled weight decay of the matrices")                          \
    K(NUM, EMBED_WD, embed_wd, 0, "decoupled weight decay of embedding and head")                  \
    K(NUM, ADAM_WD, adam_wd, 0, "decoupled weight decay of the scalars")                           \
    K(NUM, MUON_MOMENTUM, muon_momentum, 0.95, "Nesterov momentum")                                \
    K(NUM, MUON_MOMENTUM_WARMUP_START, muon_momentum_warmup_start, 0.85, "momentum at step 0")     \
    K(INT, MUON_MOMENTUM_WARMUP_STEPS, muon_momentum_warmup_steps, 500, "steps to full momentum")  \
    K(INT, MUON_BACKEND_STEPS, muon_backend_steps, 5, "Newton-Schulz iterations")                  \
    K(INT, MUON_ROW_NORM, muon_row_norm, 0, "1: MuonEq-R, rows normalised before Newton-Schulz")   \
    K(NUM, BETA1, beta1, 0.9, "AdamW")                                                             \
    K(NUM, BETA2, beta2, 0.95, "AdamW")                                                            \
    K(NUM, ADAM_EPS, adam_eps, 1e-8, "AdamW")                                                      \
    K(NUM, GRAD_CLIP_NORM, grad_clip_norm, 0, "global L2 norm of the gradient, 0: no clipping")    \
    K(NUM, EMA_DECAY, ema_decay, 0, "exponential average of the weights is saved; 0: none")

#define RECIPE_QUANT_KEYS(K)                                                                       \
    K(INT, QUANT_BITS, quant_bits, 6, "bits of the block matrices, 2 to 8")                        \
    K(INT, QUANT_EMBED_BITS, quant_embed_bits, 8, "bits of embedding and head, 2 to 8")            \
    K(STR, QUANT_CLIP, quant_clip, "row",                                                          \
      "clip search: row (each row its own) or tensor (percentiles, as the records do)")            \
    K(NUM, QUANT_SCALE_FLOOR, quant_scale_floor, 0,                                                \
      "row scales are at least this/(2^(bits-1)-1); the records have 1")                           \
    K(INT, QUANT_KEEP_NUMEL, quant_keep_numel, 0,                                                  \
      "matrices up to this size stay fp16, as vectors always do; the records have 65536")
