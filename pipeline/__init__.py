"""The flow of a training job, in order. A stage imports from earlier stages only.

What is asked for
  1. errors             what a user can get wrong, said in words
  2. rules              what a version must show to become champion
  3. recipe             everything that defines a job: sections, defaults, checks
  4. decoding           how translations are asked for
  5. recipe_file        reading a recipe and its overrides; mistakes in words
  6. model_uri          what MODEL may be on a command line
  7. placement          what a job may ask of a cluster
  8. cluster            starting or joining Ray, and how large it is
  9. checkout           which commit the code is of
 10. sealed             secrets on their way to a job
 11. parcel             what goes to a cluster with a job
 12. job_server         jobs on a cluster: given, followed, stopped

From a data set to micro-batches
 13. lexicon            the words of the embedded corpus
 14. grammar            the embedded corpus: a generator of English-German sentence pairs
 15. hub                a hub dataset: its commit, its splits, its README's settings
 16. remote             files elsewhere; a lost connection is said in words
 17. listing            what a folder holds, and files written whole, while others do the same
 18. files              which files a location means: hub names, folders, globs, paths
 19. lines              text files, unpacked, line by line within bounded memory
 20. whole_rows         all columns of a row: their types, and their values in these types
 21. rows               any reader's columns → source, target, and what is wrong with them
 22. text_readers       JSON lines, CSV and TSV, pairs of text files → tables of rows
 23. readers            files → tables of rows
 24. shards             whatever else `datasets` can stream, shard by shard
 25. source             all of a split as one Ray Dataset, in order
 26. known_sources      what a source was when it was prepared, for when it cannot be reached
 27. survey             a data set looked through: its columns' types, and how many rows
 28. cleaning           which pairs are used; the others are counted by reason
 29. stretches          the cleaned pairs as they were read, until their number is known
 30. duplicates         equal pairs, found within bounded memory
 31. pieces             pairs → Parquet files of equal pieces, and their digest
 32. corpus             the cleaned pairs on storage, in pieces that can be read in any order
 33. mixture            several corpora as one, each used by its weight
 34. tokenizer          text ↔ token ids, trained from the corpus, cached by hash
 35. sampling           other tokens for the same text, as the seed draws them
 36. windows            the step list: which pairs make which optimizer step
 37. tokens             a corpus' token ids: encoded now, or read where they were prepared
 38. budget             whether pairs fit into micro-batches, and a step into a window
 39. prepare            from a recipe to what training reads
 40. portions           a window's steps as rows, dealt to the ranks
 41. batches            what a worker eats: checked steps of padded micro-batches
 42. stream             all windows of all epochs as one Ray Dataset

Training
 43. training_state     where training stands, besides weights and moments
 44. stopwatch          where a rank's time goes, by phase
 45. step               one optimizer step, and what its loss means on any number of workers
 46. model_folder       a model on disk: sizes, weights and tokenizer
 47. folders            folders on storage that are whole or absent
 48. fence              which of a job's starts may write to its storage
 49. checkpoint_store   a job's checkpoints; a damaged one falls back to the one before
 50. checkpoint         what a checkpoint holds
 51. background         checkpoints written while training goes on
 52. plan               what the driver decides and every worker follows
 53. prefix             what a translation has to begin with, as a constraint on its tokens
 54. translate          sentences → sentences, with a model folder
 55. exports            a model folder's exports for faster engines, sealed by checksums
 56. conversion         the Transformer in CTranslate2's form
 57. fast_engine        CTranslate2: the same search, several times as fast
 58. engines            what runs a model: torch, or CTranslate2
 59. evaluate           BLEU and chrF with their signatures
 60. significance       whether a difference is more than luck
 61. behaviour          what a score hides: lost numbers, loops, what a typing error does
 62. gate               rules in, verdicts with their figures out
 63. validate           loss and BLEU on the validation set, shared out over the ranks
 64. pictures           curves and attention maps
 65. tracking_server    reaching MLflow, and waiting a while when it is away
 66. for_people         pictures and pages: none of them is worth a job
 67. spool              metrics on disk while the server is away
 68. averaging          the mean of the last checkpoints: of which, and whether it is done
 69. delivery           metrics into runs, each of them once
 70. metric_log         metrics by step: never waited for, never lost, never twice
 71. node_monitor       what a node's CPU, memory, disk, network and GPU do, as metrics
 72. events             what befell a run: restarts, failures, interruptions
 73. event_log          brings the events into the run
 74. track              one MLflow run per job: parameters, metrics, artifacts
 75. sync               delivers what a job kept on disk while the server was away
 76. node_watch         a monitor on every node, also on those that join later
 77. progress           the line that says where training is
 78. ballot             what all ranks must decide together, asked without waiting
 79. telemetry          what a rank does, as Ray's metrics
 80. worker             what a rank does at each step
 81. loop               the training loop that every rank runs
 82. feed               gives the workers their share of the steps that remain
 83. reporter           says what befalls the workers
 84. whole_starts       workers that have started, or leave nothing behind
 85. train              Ray Train: places the workers and starts them again

The finished model
 86. pyfunc             what MLflow runs of a registered model: code and data, no pickle
 87. provenance         what a model was made from, kept with its version
 88. markdown           text from elsewhere in a page: it stays text
 89. model_card         what a version is, for whoever finds it
 90. versions           a model folder as a version of a registered model
 91. contender          a version, as the gate sees it
 92. ledger             every decision about a model's champion, in one order
 93. settling           the alias follows the ledger
 94. pinned_sets        other evaluation sets, by name
 95. report             a decision as a page
 96. registry           models in and out, and who is challenger
 97. decision           judged, reported, written, completed
 98. promotion          who becomes champion, and the way back
 99. notice             what a receiver is told of a new champion, and whether it is genuine
100. webhooks           who is told of new champions
101. lineage            from a version to its data, and from data to versions
102. marian             the Transformer as Hugging Face's MarianMT
103. export             a model in another form, checked before it is handed over
104. use                a finished model at work: score it, translate with it
105. translated_parts   the output of a long translation: parts, whole or absent
106. translated_rows    all rows of a span, each with its translation or why there is none
107. row_progress       the line that says how far a data set's translation is
108. translate_dataset  a data set to a data set through Ray Data
109. finish             what a finished training comes to, scored and registered
110. job_data           what a job was begun with: other data are another job
111. stored             what lies on a storage, and which jobs use it
112. job                the whole way, from a recipe to a registered model

A server of translations
113. serve_limits       what one client may ask of it, and how much may wait
114. serve_replica      one version of the model, and the requests that wait for it, together
115. serve_requests     requests: read within bounds, checked, or refused
116. serve_metrics      what it tells Prometheus
117. serve_versions     the version in use, and the change to the next
118. serve_answers      translations, attention, readiness
119. serve_app          the interface, its description, and the pages for people
120. serve_http         clients that are slow, many, or speak no HTTP
121. serve              from MODEL to the last answer
122. doctor_server      whether a tracking server does what a job needs
123. doctor_node        what a node says of itself
124. doctor_checks      what was found, judged
125. doctor             what is wrong with a cluster, its storage and its tracking server
"""
