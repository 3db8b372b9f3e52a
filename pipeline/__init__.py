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
18. duplicates         equal pairs, found within bounded memory
19. pieces             pairs → Parquet files of equal pieces, and their digest
20. corpus             the cleaned pairs on storage, in pieces that can be read in any order
21. mixture            several corpora as one, each used by its weight
22. tokenizer          text ↔ token ids, trained from the corpus, cached by hash
23. sampling           other tokens for the same text, as the seed draws them
24. windows            the step list: which pairs make which optimizer step
25. tokens             a corpus' token ids: encoded now, or read where they were prepared
26. prepare            from a recipe to what training reads
27. portions           a window's steps as rows, dealt to the ranks
28. batches            what a worker eats: checked steps of padded micro-batches
29. stream             all windows of all epochs as one Ray Dataset

Training
30. step               one optimizer step, and what its loss means on any number of workers
31. model_folder       a model on disk: sizes, weights and tokenizer
32. checkpoint         weights, optimizer and position in the data: whole or absent
33. plan               what the driver decides and every worker follows
34. translate          sentences → sentences, with a model folder
35. evaluate           BLEU and chrF with their signatures
36. validate           loss and BLEU on the validation set, shared out over the ranks
37. pictures           curves and attention maps
38. track              one MLflow run per job: parameters, metrics, artifacts
39. progress           the line that says where training is
40. worker             the training loop that every rank runs
41. train              Ray Train: places, feeds and restarts the workers

The finished model
42. pyfunc             what MLflow runs of a registered model: code and data, no pickle
43. versions           a model folder as a version of a registered model
44. registry           champion and challenger, the gate, the way back
45. use                a finished model at work: score it, translate with it
46. translate_dataset  a data set to a data set through Ray Data
47. job                the whole way, from a recipe to a registered model
"""
