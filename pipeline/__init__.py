"""The flow of a training job, in order. A stage imports from earlier stages only.

 1. errors             what a user can get wrong, said in words
 2. recipe             everything that defines a job: sections, defaults, checks
 3. cluster            starting or joining Ray, and what a job may ask of it
 4. grammar            the embedded corpus: a generator of English-German sentence pairs
 5. hub                the Hugging Face hub: which files a data set consists of
 6. source             hub name or files → a Ray Dataset of {source, target}
 7. corpus             the cleaned pairs on storage, in pieces that can be read in any order
 8. tokenizer          text ↔ token ids, trained from the corpus, cached by hash
 9. batches            corpus → the step list → one stream of micro-batches per rank
10. step               one optimizer step, and what its loss means on any number of workers
11. model_folder       a model on disk: sizes, weights and tokenizer
12. checkpoint         weights, optimizer and position in the data: whole or absent
13. plan               what the driver decides and every worker follows
14. translate          sentences → sentences, with a model folder
15. evaluate           BLEU and chrF with their signatures
16. validate           loss and BLEU on the validation set, shared out over the ranks
17. pictures           curves and attention maps
18. track              one MLflow run per job: parameters, metrics, artifacts
19. progress           the line that says where training is
20. worker             the training loop that every rank runs
21. train              Ray Train: places, feeds and restarts the workers
22. model_uri          what MODEL may be on a command line
23. pyfunc             a registered model as MLflow loads it: code and data, no pickle
24. registry           model versions, champion and challenger, the gate
25. translate_dataset  a data set to a data set through Ray Data
26. use                a finished model at work: score it, translate with it
27. job                the whole way, from a recipe to a registered model
"""
