"""Lines of journals that tuner wrote at commit 61b80c3, one of each kind."""

# fmt: off
LINES = (
    # search
    r'{"event":"search","space":"{\"name\":\"small\",\"data\":{\"source\":null,\"files\":[\"'
    r'/tmp/home-61b80c3/texts\"],\"hub\":null,\"pairs\":false,\"source_field\":\"source\",\"'
    r'target_field\":\"target\",\"hub_config\":null,\"split\":\"train\",\"revision\":null,\"'
    r'field\":\"text\",\"column\":\"text\",\"separator\":\"<|endoftext|>\",\"errors\":\"stri'
    r'ct\",\"validation_fraction\":0.2},\"tokenizer\":{\"file\":null,\"vocab_size\":300,\"pa'
    r'ttern\":\"gpt2\"},\"init_from\":null,\"model\":{\"d_model\":{\"name\":\"d_model\",\"di'
    r'stribution\":{\"kind\":\"value\",\"value\":16},\"fraction_of\":null,\"when\":{},\"alte'
    r'rnative\":0,\"prior\":null},\"n_layers\":{\"name\":\"n_layers\",\"distribution\":{\"ki'
    r'nd\":\"value\",\"value\":1},\"fraction_of\":null,\"when\":{},\"alternative\":0,\"prior'
    r'\":null},\"n_heads\":{\"name\":\"n_heads\",\"distribution\":{\"kind\":\"value\",\"valu'
    r'e\":2},\"fraction_of\":null,\"when\":{},\"alternative\":0,\"prior\":null},\"context_le'
    r'ngth\":{\"name\":\"context_length\",\"distribution\":{\"kind\":\"value\",\"value\":16}'
    r',\"fraction_of\":null,\"when\":{},\"alternative\":0,\"prior\":null},\"d_ff\":{\"name\"'
    r':\"d_ff\",\"distribution\":{\"kind\":\"value\",\"value\":32},\"fraction_of\":null,\"wh'
    r'en\":{},\"alternative\":0,\"prior\":null}},\"hyperparameters\":{\"max_learning_rate\":'
    r'{\"name\":\"max_learning_rate\",\"distribution\":{\"kind\":\"log\",\"low\":0.001,\"hig'
    r'h\":0.1},\"fraction_of\":null,\"when\":{},\"alternative\":0,\"prior\":null},\"warmup_s'
    r'teps\":{\"name\":\"warmup_steps\",\"distribution\":{\"kind\":\"uniform\",\"low\":0.0,'
    r'\"high\":0.2},\"fraction_of\":\"total_steps\",\"when\":{},\"alternative\":0,\"prior\":n'
    r'ull},\"batch_size\":{\"name\":\"batch_size\",\"distribution\":{\"kind\":\"choice\",\"v'
    r'alues\":[4,8]},\"fraction_of\":null,\"when\":{},\"alternative\":0,\"prior\":null}},\"b'
    r'udget\":{\"tokens\":6000,\"reports\":6,\"validation_tokens\":512},\"engine\":{\"worker'
    r's\":1,\"slots\":null,\"micro_batch\":null,\"device\":\"auto\",\"dtype\":\"auto\",\"tim'
    r'eout_seconds\":60.0},\"search\":{\"trials\":4,\"sampler\":\"tpe\",\"scheduler\":\"asha'
    r'\",\"asha\":\"promote\",\"reduction_factor\":3,\"perturb_reports\":2,\"seed\":1,\"try_'
    r'first\":[],\"order\":\"auto\",\"max_tokens\":null,\"max_seconds\":null,\"patience\":nu'
    r'll,\"keep\":1},\"confirm\":{\"top\":1,\"seeds\":2},\"objective\":{\"metric\":\"val_los'
    r's\",\"mode\":\"min\"},\"further_objectives\":[]}","space_text":"name: small\ndata: {fi'
    r'les: texts, validation_fraction: 0.2}\ntokenizer: {vocab_size: 300}\nmodel: {d_model: '
    r'16, n_layers: 1, n_heads: 2, context_length: 16, d_ff: 32}\nhyperparameters:\n  α_max:'
    r' {log: [1e-3, 1e-1]}\n  T_warmup: {fraction_of: T_total, uniform: [0.0, 0.2]}\n  B: {c'
    r'hoice: [4, 8]}\nbudget: {tokens: 6000, reports: 6, validation_tokens: 512}\nsearch: {t'
    r'rials: 4, seed: 1, keep: 1}\nengine: {workers: 1}\nconfirm: {top: 1, seeds: 2}\n","fac'
    r'ts":{"vocab_size":300,"train_size":9320,"validation_size":3209,"data_fingerprint":"db7'
    r'5e952559ea309cb84022af899f0d3930b281488a87a9aae251119013a137a","tokenizer_fingerprint"'
    r':"82d751329c8b24994ed563a0cfa0ef23582ae58ae1b2a1948473b794c94c4f4e","end_of_text":0,"h'
    r'as_pairs":false,"init_from":null,"train_tokens":9320,"validation_tokens":3209},"time_m'
    r's":1795343480518,"crc":"b7e811e5"}',
    # session
    r'{"event":"session","environment":{"device":"cpu: AMD EPYC, AVX512","dtype":"float32","'
    r'width":"any","trainer":"2","torch":"2.13.0+cpu","numpy":"2.4.6","python":"3.11.7","sac'
    r'rebleu":"2.6.0"},"slots":1,"in_order":true,"time_ms":1795343531661,"crc":"2651b641"}',
    # trial
    r'{"event":"trial","number":0,"draw":{"max_learning_rate":0.001,"warmup_steps/total_step'
    r's":0.05,"batch_size":8},"spec":"{\"hyperparameters\":{\"learning_rate\":0.001,\"beta1'
    r'\":0.9,\"beta2\":0.95,\"eps\":1e-8,\"weight_decay\":0.1,\"embedding_decay\":0.0,\"gain_'
    r'decay\":0.0,\"l1_penalty\":0.0,\"momentum\":0.9,\"dampening\":0.0,\"trust_coefficient'
    r'\":0.001,\"dropout\":0.0,\"embedding_dropout\":0.0,\"attention_dropout\":0.0,\"residual'
    r'_dropout\":0.0,\"token_noise\":0.0,\"label_smoothing\":0.0,\"grad_clip\":1.0,\"grad_cl'
    r'ip_value\":0.0,\"z_loss\":0.0,\"ema_decay\":0.0,\"target_sparsity\":0.0,\"prune_start_'
    r'steps\":9,\"prune_end_steps\":38,\"prune_interval_steps\":10,\"warmup_steps\":2,\"max_'
    r'learning_rate\":0.001,\"min_learning_rate\":0.0001,\"cycle_steps\":47,\"cycle_multipli'
    r'er\":1.0,\"decay_steps\":14,\"decay_factor\":0.1,\"cooldown_steps\":9,\"cooldown_shape'
    r'\":\"linear\",\"plateau_patience\":1,\"plateau_cooldown\":0,\"noam_factor\":1.0,\"batc'
    r'h_size\":8,\"total_steps\":47,\"epochs\":1,\"optimizer\":\"adamw\",\"schedule\":\"cosi'
    r'ne\"},\"architecture\":{\"vocab_size\":300,\"end_of_text\":0,\"context_length\":16,\"d'
    r'_model\":16,\"n_layers\":1,\"n_encoder_layers\":0,\"source_length\":0,\"n_heads\":2,\"'
    r'n_kv_heads\":2,\"activation\":\"swiglu\",\"d_ff\":32,\"position\":\"rope\",\"rope_thet'
    r'a\":10000.0,\"norm\":\"rmsnorm\",\"norm_placement\":\"pre\",\"qk_norm\":false,\"tied_e'
    r'mbeddings\":false,\"logit_soft_cap\":0.0,\"attend_across_documents\":true},\"data\":{'
    r'\"source\":null,\"files\":[\"/tmp/home-61b80c3/texts\"],\"hub\":null,\"pairs\":false,\"'
    r'source_field\":\"source\",\"target_field\":\"target\",\"hub_config\":null,\"split\":\"'
    r'train\",\"revision\":null,\"field\":\"text\",\"column\":\"text\",\"separator\":\"<|end'
    r'oftext|>\",\"errors\":\"strict\",\"validation_fraction\":0.2},\"tokenizer\":{\"file\":'
    r'null,\"vocab_size\":300,\"pattern\":\"gpt2\"},\"data_fingerprint\":\"db75e952559ea309c'
    r'b84022af899f0d3930b281488a87a9aae251119013a137a\",\"tokenizer_fingerprint\":\"82d75132'
    r'9c8b24994ed563a0cfa0ef23582ae58ae1b2a1948473b794c94c4f4e\",\"train_sequences\":582,\"v'
    r'alidation_sequences\":32,\"micro_batch\":4,\"report_tokens\":1000,\"seed\":1,\"init_fr'
    r'om\":null,\"continues\":null}","parent":null,"confirms":null,"recorded":false,"time_ms'
    r'":1795343531692,"crc":"24c725a3"}',
    # report
    r'{"event":"report","number":0,"trial_id":"0","status":"training","step":8,"tokens":1024'
    r',"val_loss":5.709364175796509,"train_loss":5.719047486782074,"grad_norm":0.46571367979'
    r'04968,"learning_rate":0.0009610954559391703,"checkpoint":"/tmp/home-61b80c3/runs/searc'
    r'hes/small-1/checkpoints/0/000000008.safetensors","sparsity":null,"token_accuracy":null'
    r',"bleu":null,"problem":null,"time_ms":1795343548166,"crc":"6bff6c2a"}',
    # outcome
    r'{"event":"outcome","number":1,"outcome":"stopped at report 3","time_ms":1795343563364,'
    r'"crc":"2e7c665e"}',
    # end
    r'{"event":"end","status":"finished","summary":{"best_val_loss":2.4722547233104706,"defa'
    r'ults_val_loss":5.580621838569641,"trials":4.0,"diverged":0.0,"tokens_spent":16128.0,"t'
    r'okens_spared":7936.0,"confirmation_tokens":12032.0,"wall_seconds":117.35136871899999,"'
    r'training_share":0.14468425333544097,"confirmed_val_loss":2.432235538959503},"first_tur'
    r'n":1795343531.7351756,"best":3,"kept":[3],"limit":null,"halted":null,"advice":["4 tria'
    r'ls are few for 3 searched parameters: with so many the tuning playbook tunes the learn'
    r'ing rate alone; give others as constants, or --trials 9."],"time_ms":1795343565974,"cr'
    r'c":"76f32908"}',
    # report
    r'{"event":"report","number":2,"trial_id":"2","status":"diverged","step":5,"tokens":640,'
    r'"val_loss":{"$float":"nan"},"train_loss":{"$float":"inf"},"grad_norm":{"$float":"nan"}'
    r',"learning_rate":0.30000000000000004,"checkpoint":null,"sparsity":null,"token_accuracy'
    r'":null,"bleu":null,"problem":"no checkpoint: «disk full»","time_ms":1795345638112,"crc'
    r'":"9f77bcd4"}',
    # failure
    r'{"event":"failure","number":2,"reason":"the worker died: α","time_ms":1795345638113,"c'
    r'rc":"9c804095"}',
    # outcome
    r'{"event":"outcome","number":2,"outcome":"failed: the worker died: α","time_ms":1795345'
    r'638113,"crc":"a9196fbc"}',
    # end
    r'{"event":"end","status":"interrupted","summary":{},"best":null,"time_ms":1795345638114'
    r',"crc":"74b5e4c0"}',
)
# fmt: on
