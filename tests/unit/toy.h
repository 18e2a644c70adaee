/* A toy in the place of src/model: a "model" whose logits are a hash of the row's token prefix,
 * passed from module to module, so that any step that mixes up order, slots, rows or lengths shows.
 *
 * Its path is its description: "toy layers=6 parallel=1 width=8 ...". parallel=1: cuts inside a
 * layer carry two tensors. fail_load=M: the segment with module M does not load. fail_module=M
 * fail_pos=P: a row at position P makes the segment with module M fail, before anything is stored.
 * slow_us=T: each run takes that long. */
#ifndef TESTS_TOY_H
#define TESTS_TOY_H

enum { TOY_VOCAB = 97 };

#endif
