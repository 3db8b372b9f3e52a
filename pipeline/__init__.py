"""The flow of a training job, in order. A stage imports from earlier stages only.

What is asked for
 1. errors             what a user can get wrong, said in words
 2. recipe             everything that defines a job: sections, defaults, checks
 3. recipe_file        reading a recipe and its overrides; mistakes in words
 4. model_uri          what MODEL may be on a command line
 5. placement          what a job may ask of a cluster
 6. cluster            starting or joining Ray, and how large it is

From a data set to micro-batches
 7. lexicon            the words of the embedded corpus
 8. grammar            the embedded corpus: a generator of English-German sentence pairs
 9. hub                a hub dataset: its commit, its splits, its README's settings
10. remote             files elsewhere; a lost connection is said in words
11. files              which files a location means: hub names, folders, globs, paths
12. lines              text files, unpacked, line by line within bounded memory
13. rows               any reader's columns → source, target, and what is wrong with them
14. readers            files → tables of rows
15. shards             whatever else `datasets` can stream, shard by shard
16. source             all of a split as one Ray Dataset, in order
17. cleaning           which pairs are used; the others are counted by reason
18. stretches          the cleaned pairs as they were read, until their number is known
19. duplicates         equal pairs, found within bounded memory
20. pieces             pairs → Parquet files of equal pieces, and their digest
21. corpus             the cleaned pairs on storage, in pieces that can be read in any order
22. mixture            several corpora as one, each used by its weight
23. tokenizer          text ↔ token ids, trained from the corpus, cached by hash
24. sampling           other tokens for the same text, as the seed draws them
25. windows            the step list: which pairs make which optimizer step
26. tokens             a corpus' token ids: encoded now, or read where they were prepared
27. prepare            from a recipe to what training reads
28. portions           a window's steps as rows, dealt to the ranks
29. batches            what a worker eats: checked steps of padded micro-batches
30. stream             all windows of all epochs as one Ray Dataset

Training
31. step               one optimizer step, and what its loss means on any number of workers
32. model_folder       a model on disk: sizes, weights and tokenizer
33. training_state     where training stands, besides weights and moments
34. folders            folders on storage that are whole or absent
35. checkpoint_store   a job's checkpoints; a damaged one falls back to the one before
36. checkpoint         what a checkpoint holds
37. background         checkpoints written while training goes on
38. plan               what the driver decides and every worker follows
39. translate          sentences → sentences, with a model folder
40. evaluate           BLEU and chrF with their signatures
41. validate           loss and BLEU on the validation set, shared out over the ranks
42. pictures           curves and attention maps
43. tracking_server    reaching MLflow, and waiting a while when it is away
44. spool              metrics on disk while the server is away
45. metric_log         metrics by step: never waited for, never lost, never twice
46. node_monitor       what a node's CPU, memory, disk, network and GPU do, as metrics
47. events             what befell a run: restarts, failures, interruptions
48. track              one MLflow run per job: parameters, metrics, artifacts
49. sync               delivers what a job kept on disk while the server was away
50. progress           the line that says where training is
51. ballot             what all ranks must decide together, asked without waiting
52. worker             what a rank does at each step
53. loop               the training loop that every rank runs
54. train              Ray Train: places, feeds and restarts the workers

The finished model
55. pyfunc             what MLflow runs of a registered model: code and data, no pickle
56. versions           a model folder as a version of a registered model
57. registry           champion and challenger, the gate, the way back
58. use                a finished model at work: score it, translate with it
59. translate_dataset  a data set to a data set through Ray Data
60. job                the whole way, from a recipe to a registered model
"""
