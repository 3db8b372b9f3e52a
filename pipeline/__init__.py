"""The flow of a training job, in order. A stage imports from earlier stages only.

What is asked for
 1. errors             what a user can get wrong, said in words
 2. recipe             everything that defines a job: sections, defaults, checks
 3. recipe_file        reading a recipe and its overrides; mistakes in words
 4. model_uri          what MODEL may be on a command line
 5. cluster            starting or joining Ray, and what a job may ask of it

From a data set to micro-batches
 6. lexicon            the words of the embedded corpus
 7. grammar            the embedded corpus: a generator of English-German sentence pairs
 8. files              which files a location means: hub names, folders, globs, paths
 9. readers            files → tables of source and target
10. source             all of a split as one Ray Dataset, in order
11. cleaning           which pairs are used; the others are counted by reason
12. corpus             the cleaned pairs on storage, in pieces that can be read in any order
13. tokenizer          text ↔ token ids, trained from the corpus, cached by hash
14. windows            the step list: which pairs make which optimizer step
15. portions           a window's steps as rows, dealt to the ranks
16. batches            what a worker eats: checked steps of padded micro-batches
17. stream             all windows of all epochs as one Ray Dataset

Training
18. step               one optimizer step, and what its loss means on any number of workers
19. model_folder       a model on disk: sizes, weights and tokenizer
20. checkpoint         weights, optimizer and position in the data: whole or absent
21. plan               what the driver decides and every worker follows
22. translate          sentences → sentences, with a model folder
23. evaluate           BLEU and chrF with their signatures
24. validate           loss and BLEU on the validation set, shared out over the ranks
25. pictures           curves and attention maps
26. track              one MLflow run per job: parameters, metrics, artifacts
27. progress           the line that says where training is
28. worker             the training loop that every rank runs
29. train              Ray Train: places, feeds and restarts the workers

The finished model
30. pyfunc             what MLflow runs of a registered model: code and data, no pickle
31. versions           a model folder as a version of a registered model
32. registry           champion and challenger, the gate, the way back
33. use                a finished model at work: score it, translate with it
34. translate_dataset  a data set to a data set through Ray Data
35. job                the whole way, from a recipe to a registered model
"""
