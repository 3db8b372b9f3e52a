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
 30. readings           what was read of each part, kept until the corpus is whole
 31. duplicates         equal pairs, found within bounded memory
 32. pieces             pairs → Parquet files of equal pieces, and their digest
 33. corpus             the cleaned pairs on storage, in pieces that can be read in any order
 34. mixture            several corpora as one, each used by its weight
 35. tokenizer          text ↔ token ids, trained from the corpus, cached by hash
 36. sampling           other tokens for the same text, as the seed draws them
 37. windows            the step list: which pairs make which optimizer step
 38. tokens             a corpus' token ids: encoded now, or read where they were prepared
 39. budget             whether pairs fit into micro-batches, and a step into a window
 40. prepare            from a recipe to what training reads
 41. portions           a window's steps as rows, dealt to the ranks
 42. batches            what a worker eats: checked steps of padded micro-batches
 43. pacing             how far the stream runs ahead of training
 44. stream             all windows of all epochs as one Ray Dataset

Training
 45. training_state     where training stands, besides weights and moments
 46. stopwatch          where a rank's time goes, by phase
 47. step               one optimizer step, and what its loss means on any number of workers
 48. model_folder       a model on disk: sizes, weights and tokenizer
 49. folders            folders on storage that are whole or absent
 50. fence              which of a job's starts may write to its storage
 51. checkpoint_store   a job's checkpoints; a damaged one falls back to the one before
 52. checkpoint         what a checkpoint holds
 53. background         checkpoints written while training goes on
 54. plan               what the driver decides and every worker follows
 55. prefix             what a translation has to begin with, as a constraint on its tokens
 56. translate          sentences → sentences, with a model folder
 57. exports            a model folder's exports for faster engines, sealed by checksums
 58. conversion         the Transformer in CTranslate2's form
 59. fast_engine        CTranslate2: the same search, several times as fast
 60. engines            what runs a model: torch, or CTranslate2
 61. evaluate           BLEU and chrF with their signatures
 62. significance       whether a difference is more than luck
 63. behaviour          what a score hides: lost numbers, loops, what a typing error does
 64. gate               rules in, verdicts with their figures out
 65. validate           loss and BLEU on the validation set, shared out over the ranks
 66. pictures           curves and attention maps
 67. tracking_server    reaching MLflow, and waiting a while when it is away
 68. for_people         pictures and pages: none of them is worth a job
 69. spool              metrics on disk while the server is away
 70. averaging          the mean of the last checkpoints: of which, and whether it is done
 71. delivery           metrics into runs, each of them once
 72. metric_log         metrics by step: never waited for, never lost, never twice
 73. node_monitor       what a node's CPU, memory, disk, network and GPU do, as metrics
 74. events             what befell a run: restarts, failures, interruptions
 75. event_log          brings the events into the run
 76. track              one MLflow run per job: parameters, metrics, artifacts
 77. sync               delivers what a job kept on disk while the server was away
 78. node_watch         a monitor on every node, also on those that join later
 79. progress           the line that says where training is
 80. ballot             what all ranks must decide together, asked without waiting
 81. telemetry          what a rank does, as Ray's metrics
 82. worker             what a rank does at each step
 83. loop               the training loop that every rank runs
 84. feed               gives the workers their share of the steps that remain
 85. reporter           says what befalls the workers
 86. whole_starts       workers that have started, or leave nothing behind
 87. train              Ray Train: places the workers and starts them again

The finished model
 88. pyfunc             what MLflow runs of a registered model: code and data, no pickle
 89. provenance         what a model was made from, kept with its version
 90. markdown           text from elsewhere in a page: it stays text
 91. model_card         what a version is, for whoever finds it
 92. versions           a model folder as a version of a registered model
 93. contender          a version, as the gate sees it
 94. ledger             every decision about a model's champion, in one order
 95. settling           the alias follows the ledger
 96. pinned_sets        other evaluation sets, by name
 97. report             a decision as a page
 98. registry           models in and out, and who is challenger
 99. decision           judged, reported, written, completed
100. promotion          who becomes champion, and the way back
101. notice             what a receiver is told of a new champion, and whether it is genuine
102. webhooks           who is told of new champions
103. lineage            from a version to its data, and from data to versions
104. marian             the Transformer as Hugging Face's MarianMT
105. export             a model in another form, checked before it is handed over
106. use                a finished model at work: score it, translate with it
107. translated_parts   the output of a long translation: parts, whole or absent
108. translated_rows    all rows of a span, each with its translation or why there is none
109. row_progress       the line that says how far a data set's translation is
110. translate_dataset  a data set to a data set through Ray Data
111. finish             what a finished training comes to, scored and registered
112. job_data           what a job was begun with: other data are another job
113. stored             what lies on a storage, and which jobs use it
114. job                the whole way, from a recipe to a registered model

A server of translations
115. serve_limits       what one client may ask of it, and how much may wait
116. serve_replica      one version of the model, and the requests that wait for it, together
117. serve_requests     requests: read within bounds, checked, or refused
118. serve_metrics      what it tells Prometheus
119. serve_versions     the version in use, and the change to the next
120. serve_answers      translations, attention, readiness
121. serve_app          the interface, its description, and the pages for people
122. serve_http         clients that are slow, many, or speak no HTTP
123. serve              from MODEL to the last answer
124. doctor_server      whether a tracking server does what a job needs
125. doctor_node        what a node says of itself
126. doctor_checks      what was found, judged
127. doctor             what is wrong with a cluster, its storage and its tracking server
"""
