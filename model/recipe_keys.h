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
    K(INT, TRAIN_SEQ_LEN, train_seq_len, 1024, "tokens per training sequence")                     \
    K(INT, XSA_LAST_N, xsa_last_n, 0, "exclusive self attention in the last N blocks")             \
    K(INT, SMEAR_GATE, smear_gate, 0, "1: each embedding is gated with the one before it")         \
    K(INT, BIGRAM_VOCAB_SIZE, bigram_vocab_size, 0, "rows of the hashed bigram table, 0: none")    \
    K(INT, BIGRAM_DIM, bigram_dim, 128, "width of the bigram table")                               \
    K(INT, VE_ENABLED, ve_enabled, 0, "1: value embeddings in the blocks of VE_LAYERS")            \
    K(INT, VE_DIM, ve_dim, 128, "width of the value-embedding table")                              \
    K(STR, VE_LAYERS, ve_layers, "", "blocks with value embeddings: 9,10")                         \
    K(INT, SKIP_GATES_ENABLED, skip_gates_enabled, 0, "1: U-Net skips through sigmoid gates")      \
    K(STR, RECUR_LAYERS, recur_layers, "",                                                         \
      "blocks that run twice in a row: 4,5 (depth recurrence)")                                    \
    K(INT, SKIP_REUSE_LAST, skip_reuse_last, 0,                                                    \
      "1: decoder steps beyond the last skip row use it again (#1260); 0: no skip (#1296)")        \
    K(STR, PARALLEL_LANES, parallel_lanes, "off",                                                  \
      "attention and MLP lanes: off, merge (#1296) or cross (#1204)")                              \
    K(INT, PARALLEL_START_LAYER, parallel_start_layer, 7, "first block with two lanes")            \
    K(INT, EMBED_BF16, embed_bf16, 0,                                                              \
      "1: embedding tables and their Adam moments are bf16, as in the records")

#define RECIPE_EVAL_KEYS(K)                                                                        \
    K(STR, EVAL_MODE, eval_mode, "sliding", "default of --eval")                                   \
    K(INT, EVAL_SEQ_LEN, eval_seq_len, 0, "tokens per scored window, 0: TRAIN_SEQ_LEN")            \
    K(INT, EVAL_STRIDE, eval_stride, 64, "step of the sliding window; at most its length")         \
    K(STR, EVAL_WINDOWS, eval_windows, "new",                                                      \
      "sliding window list: new (each token once) or old (as #549, #1263; docs/scoring.md)")       \
    K(INT, SLOT_STEPS, slot_steps, 16, "SLOT: AdamW steps per batch of windows")                   \
    K(NUM, SLOT_LR, slot_lr, 0.008, "SLOT: first learning rate")                                   \
    K(NUM, SLOT_LR_MIN, slot_lr_min, -1, "SLOT: end of the cosine; -1: constant SLOT_LR")          \
    K(NUM, SLOT_WD, slot_wd, 0.01, "SLOT: decoupled weight decay (the library default)")           \
    K(NUM, SLOT_EPS, slot_eps, 1e-8, "SLOT: AdamW epsilon")                                        \
    K(INT, SLOT_BATCH_SEQS, slot_batch_seqs, 32, "SLOT: windows whose losses are averaged")        \
    K(INT, SLOT_SHARED, slot_shared, 0,                                                            \
      "context-only SLOT: 1 one delta per batch of windows (#1276), 0 one per window (causal)")    \
    K(INT, SLOT_AFTER_TTT, slot_after_ttt, 0,                                                      \
      "context-only SLOT: 1 on weights that TTT adapted to the whole stream (#1276)")              \
    K(NUM, TTT_LR, ttt_lr, 0.002, "TTT: SGD rate of the first chunk, cosine to 0")                 \
    K(INT, TTT_EPOCHS, ttt_epochs, 3, "TTT: passes over a scored chunk")                           \
    K(INT, TTT_CHUNK_TOKENS, ttt_chunk_tokens, 32768, "TTT: positions scored between updates")     \
    K(NUM, TTT_MOMENTUM, ttt_momentum, 0.9, "TTT: SGD momentum")                                   \
    K(INT, TTT_BATCH_SEQS, ttt_batch_seqs, 32, "TTT: sequences per SGD step")                      \
    K(NUM, TTT_GRAD_CLIP, ttt_grad_clip, 1, "TTT: global gradient norm, 0: no clipping")           \
    K(INT, TTT_FREEZE_BLOCKS, ttt_freeze_blocks, 0, "TTT: the first N blocks stay as they are")    \
    K(INT, TTT_FREEZE_MATRICES, ttt_freeze_matrices, 1,                                            \
      "TTT: 0: matrices of frozen blocks are trained all the same (#549: they lie in banks)")

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
    K(STR, GRAD_CLIP_SCOPE, grad_clip_scope, "global",                                             \
      "what GRAD_CLIP_NORM clips: global (the sum) or rank (each of GRAD_RANKS before it, #1276)") \
    K(INT, GRAD_RANKS, grad_ranks, 8,                                                              \
      "gradients that a step is added up of, so the most processes; 1 to 512, a power of two")     \
    K(NUM, EMA_DECAY, ema_decay, 0, "exponential average of the weights is saved; 0: none")        \
    K(STR, LOADER, loader, "sequential", "order of training data: sequential or coprime (#726)")   \
    K(INT, LOADER_RANKS, loader_ranks, 0,                                                          \
      "processes whose order of data is kept; 0: coprime 8, sequential none")                      \
    K(INT, WARMUP_STEPS, warmup_steps, 0,                                                          \
      "steps run before the clock and undone (weights, optimiser, data); warms caches only")       \
    K(INT, RECUR_START_STEP, recur_start_step, 0, "RECUR_LAYERS run twice from this step on")      \
    K(INT, PROJ_DEPTH_INIT, proj_depth_init, 0,                                                    \
      "1: orthogonal init of the small projections is divided by sqrt(2*NUM_LAYERS) (#1263)")      \
    K(STR, PROJ_OPTIMIZER, proj_optimizer, "muon",                                                 \
      "bigram.proj and ve_shared.proj: muon, or adamw as control tensors (#549, #1276)")           \
    K(INT, MATRIX_BANKS, matrix_banks, 0,                                                          \
      "1: matrices of a kind lie side by side (Parallel Muon's banks, #549); files are the same")  \
    K(INT, MUON_BF16, muon_bf16, 0, "1: Muon's gradient and momentum are rounded to bf16 (#549)")  \
    K(INT, SWA_ENABLED, swa_enabled, 0, "1: snapshots are averaged while the rate is low")         \
    K(INT, SWA_EVERY, swa_every, 50, "steps between snapshots")                                    \
    K(NUM, SWA_START_SCALE, swa_start_scale, 0.2, "snapshots begin below this lr multiplier")      \
    K(INT, SWA_APPLY, swa_apply, 1,                                                                \
      "1: their mean is what is saved; 0: it is thrown away (#549, #1263, #1276 did)")             \
    K(NUM, LATE_QAT_THRESHOLD, late_qat_threshold, 0,                                              \
      "fake-quantised weights (int6 STE) below this lr multiplier; 0: never")                      \
    K(STR, LATE_QAT_SCOPE, late_qat_scope, "all",                                                  \
      "what late QAT touches: all matrices, proj (the small ones, #549 eager), none (compiled)")   \
    K(NUM, GPTQ_RESERVE_SECONDS, gptq_reserve_seconds, 0,                                          \
      "training stops this long before MAX_WALLCLOCK_SECONDS")

#define RECIPE_QUANT_KEYS(K)                                                                       \
    K(INT, QUANT_BITS, quant_bits, 6, "bits of the block matrices, 2 to 8")                        \
    K(INT, QUANT_EMBED_BITS, quant_embed_bits, 8, "bits of embedding and head, 2 to 8")            \
    K(STR, QUANT_CLIP, quant_clip, "row",                                                          \
      "clip search: row (each row its own) or tensor (percentiles, as the records do)")            \
    K(NUM, QUANT_SCALE_FLOOR, quant_scale_floor, 0,                                                \
      "row scales are at least this/(2^(bits-1)-1); the records have 1")                           \
    K(INT, QUANT_KEEP_NUMEL, quant_keep_numel, 0,                                                  \
      "matrices up to this size stay fp16, as vectors always do; the records have 65536")          \
    K(STR, QUANTIZER, quantizer, "record",                                                         \
      "record: as published, by the settings below; rd: by RD_*, to a number of bytes")            \
    K(STR, QUANT_METHOD, quant_method, "search",                                                   \
      "integers of the block matrices: search (rounding) or gptq")                                 \
    K(INT, GPTQ_CALIB_BATCHES, gptq_calib_batches, 64, "GPTQ: batches of calibration data")        \
    K(INT, GPTQ_BATCH_TOKENS, gptq_batch_tokens, 98304, "GPTQ: tokens of a calibration batch")     \
    K(STR, GPTQ_DATA, gptq_data, "first",                                                          \
      "GPTQ: first (the first training batches) or continue (where training stopped, #1263)")      \
    K(NUM, GPTQ_DAMP, gptq_damp, 0.01, "GPTQ: damping, times the mean of the Hessian's diagonal")  \
    K(NUM, GPTQ_COLLECT_DAMP, gptq_collect_damp, 0,                                                \
      "GPTQ: the same once more when the Hessian is collected (#1263: 0.01)")                      \
    K(INT, GPTQ_BLOCK, gptq_block, 128, "GPTQ: columns per block")                                 \
    K(INT, MIXED_QUANT, mixed_quant, 0, "1: only the N_INT6_LAYERS most sensitive are int6")       \
    K(INT, N_INT6_LAYERS, n_int6_layers, 60, "matrices that stay int6, the others become int5")    \
    K(INT, PRUNE_TARGET_BYTES, prune_target_bytes, 0,                                              \
      "integers of +-1 are zeroed until file and code fit this; 0: never")                         \
    K(INT, PRUNE_CODE_BYTES, prune_code_bytes, 0, "bytes of code that count against it")           \
    K(STR, PRUNE_SEARCH, prune_search, "once",                                                     \
      "once (8 per byte of excess, #1296) or fit (the fewest that fit, #1019)")                    \
    K(STR, COMPRESSOR, compressor, "brotli", "of the record's file: brotli, zstd, lzma or zlib")   \
    K(INT, COMPRESSOR_LEVEL, compressor_level, 0,                                                  \
      "its level; 0: brotli 11, zstd 22, lzma 6, zlib 9")                                          \
    K(INT, BYTE_SHUFFLE, byte_shuffle, 0, "stride of the byte shuffle before it, 0: none")         \
    K(INT, RD_TARGET_BYTES, rd_target_bytes, 0, "rd: bytes that the finished file may have")       \
    K(INT, RD_STATES, rd_states, 256, "rd: states of the trellis, 4 to 256; 0: plain rounding")    \
    K(STR, RD_STEPS, rd_steps, "fisher",                                                           \
      "rd: steps from all that errors cost (fisher), or for comparison without a part of it: "     \
      "open (no "                                                                                  \
      "feedback), column, matrix or row")                                                          \
    K(INT, RD_TUNE, rd_tune, 1, "rd: 1: steps of each kind of matrix tuned on the divergence")     \
    K(NUM, RD_EMBED_SHARE, rd_embed_share, 0,                                                      \
      "rd: multiplier of the steps of embedding and head; 0: as RD_TUNE has it")                   \
    K(INT, RD_CALIB_TOKENS, rd_calib_tokens, 65536,                                                \
      "rd: tokens of training data to calibrate with")                                             \
    K(INT, RD_KL_TOKENS, rd_kl_tokens, 16384, "rd: tokens to measure the divergence on")
