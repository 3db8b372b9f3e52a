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
 16. listing            what a folder holds, while others change it
 17. files              which files a location means: hub names, folders, globs, paths
 18. lines              text files, unpacked, line by line within bounded memory
 19. whole_rows         all columns of a row: their types, and their values in these types
 20. rows               any reader's columns → source, target, and what is wrong with them
 21. text_readers       JSON lines, CSV and TSV, pairs of text files → tables of rows
 22. readers            files → tables of rows
 23. shards             whatever else `datasets` can stream, shard by shard
 24. source             all of a split as one Ray Dataset, in order
 25. survey             a data set looked through: its columns' types, and how many rows
 26. cleaning           which pairs are used; the others are counted by reason
 27. stretches          the cleaned pairs as they were read, until their number is known
 28. duplicates         equal pairs, found within bounded memory
 29. pieces             pairs → Parquet files of equal pieces, and their digest
 30. corpus             the cleaned pairs on storage, in pieces that can be read in any order
 31. mixture            several corpora as one, each used by its weight
 32. tokenizer          text ↔ token ids, trained from the corpus, cached by hash
 33. sampling           other tokens for the same text, as the seed draws them
 34. windows            the step list: which pairs make which optimizer step
 35. tokens             a corpus' token ids: encoded now, or read where they were prepared
 36. budget             whether pairs fit into micro-batches, and a step into a window
 37. prepare            from a recipe to what training reads
 38. portions           a window's steps as rows, dealt to the ranks
 39. batches            what a worker eats: checked steps of padded micro-batches
 40. stream             all windows of all epochs as one Ray Dataset

Training
 41. training_state     where training stands, besides weights and moments
 42. stopwatch          where a rank's time goes, by phase
 43. step               one optimizer step, and what its loss means on any number of workers
 44. model_folder       a model on disk: sizes, weights and tokenizer
 45. folders            folders on storage that are whole or absent
 46. fence              which of a job's starts may write to its storage
 47. checkpoint_store   a job's checkpoints; a damaged one falls back to the one before
 48. checkpoint         what a checkpoint holds
 49. background         checkpoints written while training goes on
 50. plan               what the driver decides and every worker follows
 51. prefix             what a translation has to begin with, as a constraint on its tokens
 52. translate          sentences → sentences, with a model folder
 53. exports            a model folder's exports for faster engines, sealed by checksums
 54. conversion         the Transformer in CTranslate2's form
 55. fast_engine        CTranslate2: the same search, several times as fast
 56. engines            what runs a model: torch, or CTranslate2
 57. evaluate           BLEU and chrF with their signatures
 58. significance       whether a difference is more than luck
 59. behaviour          what a score hides: lost numbers, loops, what a typing error does
 60. gate               rules in, verdicts with their figures out
 61. validate           loss and BLEU on the validation set, shared out over the ranks
 62. pictures           curves and attention maps
 63. tracking_server    reaching MLflow, and waiting a while when it is away
 64. for_people         pictures and pages: none of them is worth a job
 65. spool              metrics on disk while the server is away
 66. averaging          the mean of the last checkpoints: of which, and whether it is done
 67. delivery           metrics into runs, each of them once
 68. metric_log         metrics by step: never waited for, never lost, never twice
 69. node_monitor       what a node's CPU, memory, disk, network and GPU do, as metrics
 70. events             what befell a run: restarts, failures, interruptions
 71. event_log          brings the events into the run
 72. track              one MLflow run per job: parameters, metrics, artifacts
 73. sync               delivers what a job kept on disk while the server was away
 74. node_watch         a monitor on every node, also on those that join later
 75. progress           the line that says where training is
 76. ballot             what all ranks must decide together, asked without waiting
 77. telemetry          what a rank does, as Ray's metrics
 78. worker             what a rank does at each step
 79. loop               the training loop that every rank runs
 80. feed               gives the workers their share of the steps that remain
 81. reporter           says what befalls the workers
 82. whole_starts       workers that have started, or leave nothing behind
 83. train              Ray Train: places the workers and starts them again

The finished model
 84. pyfunc             what MLflow runs of a registered model: code and data, no pickle
 85. provenance         what a model was made from, kept with its version
 86. markdown           text from elsewhere in a page: it stays text
 87. model_card         what a version is, for whoever finds it
 88. versions           a model folder as a version of a registered model
 89. contender          a version, as the gate sees it
 90. ledger             every decision about a model's champion, in one order
 91. settling           the alias follows the ledger
 92. pinned_sets        other evaluation sets, by name
 93. report             a decision as a page
 94. registry           models in and out, and who is challenger
 95. decision           judged, reported, written, completed
 96. promotion          who becomes champion, and the way back
 97. notice             what a receiver is told of a new champion, and whether it is genuine
 98. webhooks           who is told of new champions
 99. lineage            from a version to its data, and from data to versions
100. marian             the Transformer as Hugging Face's MarianMT
101. export             a model in another form, checked before it is handed over
102. use                a finished model at work: score it, translate with it
103. translated_parts   the output of a long translation: parts, whole or absent
104. translated_rows    all rows of a span, each with its translation or why there is none
105. row_progress       the line that says how far a data set's translation is
106. translate_dataset  a data set to a data set through Ray Data
107. finish             what a finished training comes to, scored and registered
108. job_data           what a job was begun with: other data are another job
109. job                the whole way, from a recipe to a registered model

A server of translations
110. serve_limits       what one client may ask of it, and how much may wait
111. serve_replica      one version of the model, and the requests that wait for it, together
112. serve_requests     requests: read within bounds, checked, or refused
113. serve_metrics      what it tells Prometheus
114. serve_versions     the version in use, and the change to the next
115. serve_answers      translations, attention, readiness
116. serve_app          the interface, its description, and the pages for people
117. serve_http         clients that are slow, many, or speak no HTTP
118. serve              from MODEL to the last answer
119. doctor_server      whether a tracking server does what a job needs
120. doctor_node        what a node says of itself
121. doctor_checks      what was found, judged
122. doctor             what is wrong with a cluster, its storage and its tracking server
"""
