"""The flow of a training job, in order. A stage imports from earlier stages only.

What is asked for
  1. errors             what a user can get wrong, said in words
  2. rules              what a version must show to become champion
  3. recipe             everything that defines a job: sections, defaults, checks
  4. recipe_file        reading a recipe and its overrides; mistakes in words
  5. model_uri          what MODEL may be on a command line
  6. placement          what a job may ask of a cluster
  7. cluster            starting or joining Ray, and how large it is
  8. checkout           which commit the code is of
  9. sealed             secrets on their way to a job
 10. parcel             what goes to a cluster with a job
 11. job_server         jobs on a cluster: given, followed, stopped

From a data set to micro-batches
 12. lexicon            the words of the embedded corpus
 13. grammar            the embedded corpus: a generator of English-German sentence pairs
 14. hub                a hub dataset: its commit, its splits, its README's settings
 15. remote             files elsewhere; a lost connection is said in words
 16. files              which files a location means: hub names, folders, globs, paths
 17. lines              text files, unpacked, line by line within bounded memory
 18. whole_rows         all columns of a row: their types, and their values in these types
 19. rows               any reader's columns → source, target, and what is wrong with them
 20. text_readers       JSON lines, CSV and TSV, pairs of text files → tables of rows
 21. readers            files → tables of rows
 22. shards             whatever else `datasets` can stream, shard by shard
 23. source             all of a split as one Ray Dataset, in order
 24. survey             a data set looked through: its columns' types, and how many rows
 25. cleaning           which pairs are used; the others are counted by reason
 26. stretches          the cleaned pairs as they were read, until their number is known
 27. duplicates         equal pairs, found within bounded memory
 28. pieces             pairs → Parquet files of equal pieces, and their digest
 29. corpus             the cleaned pairs on storage, in pieces that can be read in any order
 30. mixture            several corpora as one, each used by its weight
 31. tokenizer          text ↔ token ids, trained from the corpus, cached by hash
 32. sampling           other tokens for the same text, as the seed draws them
 33. windows            the step list: which pairs make which optimizer step
 34. tokens             a corpus' token ids: encoded now, or read where they were prepared
 35. prepare            from a recipe to what training reads
 36. portions           a window's steps as rows, dealt to the ranks
 37. batches            what a worker eats: checked steps of padded micro-batches
 38. stream             all windows of all epochs as one Ray Dataset

Training
 39. training_state     where training stands, besides weights and moments
 40. stopwatch          where a rank's time goes, by phase
 41. step               one optimizer step, and what its loss means on any number of workers
 42. model_folder       a model on disk: sizes, weights and tokenizer
 43. folders            folders on storage that are whole or absent
 44. fence              which of a job's starts may write to its storage
 45. checkpoint_store   a job's checkpoints; a damaged one falls back to the one before
 46. checkpoint         what a checkpoint holds
 47. background         checkpoints written while training goes on
 48. plan               what the driver decides and every worker follows
 49. prefix             what a translation has to begin with, as a constraint on its tokens
 50. translate          sentences → sentences, with a model folder
 51. exports            a model folder's exports for faster engines, sealed by checksums
 52. conversion         the Transformer in CTranslate2's form
 53. fast_engine        CTranslate2: the same search, several times as fast
 54. engines            what runs a model: torch, or CTranslate2
 55. evaluate           BLEU and chrF with their signatures
 56. significance       whether a difference is more than luck
 57. behaviour          what a score hides: lost numbers, loops, what a typing error does
 58. gate               rules in, verdicts with their figures out
 59. validate           loss and BLEU on the validation set, shared out over the ranks
 60. pictures           curves and attention maps
 61. tracking_server    reaching MLflow, and waiting a while when it is away
 62. spool              metrics on disk while the server is away
 63. metric_log         metrics by step: never waited for, never lost, never twice
 64. node_monitor       what a node's CPU, memory, disk, network and GPU do, as metrics
 65. events             what befell a run: restarts, failures, interruptions
 66. event_log          brings the events into the run
 67. track              one MLflow run per job: parameters, metrics, artifacts
 68. sync               delivers what a job kept on disk while the server was away
 69. node_watch         a monitor on every node, also on those that join later
 70. progress           the line that says where training is
 71. ballot             what all ranks must decide together, asked without waiting
 72. telemetry          what a rank does, as Ray's metrics
 73. worker             what a rank does at each step
 74. loop               the training loop that every rank runs
 75. feed               gives the workers their share of the steps that remain
 76. reporter           says what befalls the workers
 77. whole_starts       workers that have started, or leave nothing behind
 78. train              Ray Train: places the workers and starts them again

The finished model
 79. pyfunc             what MLflow runs of a registered model: code and data, no pickle
 80. provenance         what a model was made from, kept with its version
 81. markdown           text from elsewhere in a page: it stays text
 82. model_card         what a version is, for whoever finds it
 83. versions           a model folder as a version of a registered model
 84. contender          a version, as the gate sees it
 85. ledger             every decision about a model's champion, in one order
 86. settling           the alias follows the ledger
 87. pinned_sets        other evaluation sets, by name
 88. report             a decision as a page
 89. registry           models in and out, and who is challenger
 90. decision           judged, reported, written, completed
 91. promotion          who becomes champion, and the way back
 92. notice             what a receiver is told of a new champion, and whether it is genuine
 93. webhooks           who is told of new champions
 94. lineage            from a version to its data, and from data to versions
 95. marian             the Transformer as Hugging Face's MarianMT
 96. export             a model in another form, checked before it is handed over
 97. use                a finished model at work: score it, translate with it
 98. translated_parts   the output of a long translation: parts, whole or absent
 99. translated_rows    all rows of a span, each with its translation or why there is none
100. row_progress       the line that says how far a data set's translation is
101. translate_dataset  a data set to a data set through Ray Data
102. finish             what a finished training comes to, scored and registered
103. job                the whole way, from a recipe to a registered model

A server of translations
104. serve_limits       what one client may ask of it, and how much may wait
105. serve_replica      one version of the model, and the requests that wait for it, together
106. serve_requests     requests: read within bounds, checked, or refused
107. serve_metrics      what it tells Prometheus
108. serve_versions     the version in use, and the change to the next
109. serve_answers      translations, attention, readiness
110. serve_app          the interface, its description, and the pages for people
111. serve_http         clients that are slow, many, or speak no HTTP
112. serve              from MODEL to the last answer
113. doctor_server      whether a tracking server does what a job needs
114. doctor_node        what a node says of itself
115. doctor_checks      what was found, judged
116. doctor             what is wrong with a cluster, its storage and its tracking server
"""
