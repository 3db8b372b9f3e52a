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
 9. files              which files a location means: hub names, folders, globs, paths
10. readers            files → tables of source and target
11. source             all of a split as one Ray Dataset, in order
12. cleaning           which pairs are used; the others are counted by reason
13. corpus             the cleaned pairs on storage, in pieces that can be read in any order
14. tokenizer          text ↔ token ids, trained from the corpus, cached by hash
15. windows            the step list: which pairs make which optimizer step
16. portions           a window's steps as rows, dealt to the ranks
17. batches            what a worker eats: checked steps of padded micro-batches
18. stream             all windows of all epochs as one Ray Dataset

Training
19. step               one optimizer step, and what its loss means on any number of workers
20. model_folder       a model on disk: sizes, weights and tokenizer
21. checkpoint         weights, optimizer and position in the data: whole or absent
22. plan               what the driver decides and every worker follows
23. translate          sentences → sentences, with a model folder
24. evaluate           BLEU and chrF with their signatures
25. validate           loss and BLEU on the validation set, shared out over the ranks
26. pictures           curves and attention maps
27. track              one MLflow run per job: parameters, metrics, artifacts
28. progress           the line that says where training is
29. worker             the training loop that every rank runs
30. train              Ray Train: places, feeds and restarts the workers

The finished model
31. pyfunc             what MLflow runs of a registered model: code and data, no pickle
32. versions           a model folder as a version of a registered model
33. registry           champion and challenger, the gate, the way back
34. use                a finished model at work: score it, translate with it
35. translate_dataset  a data set to a data set through Ray Data
36. job                the whole way, from a recipe to a registered model
"""
