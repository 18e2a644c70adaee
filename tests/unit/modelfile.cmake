lingua_test(test_modelfile ${CMAKE_CURRENT_LIST_DIR}/test_modelfile.c ${CMAKE_SOURCE_DIR}/tests/support/gguf_bytes.c
  LIBS lingua_model)
target_include_directories(test_modelfile PRIVATE ${CMAKE_SOURCE_DIR}/tests)
# The test counts what a file makes the reader allocate.
target_link_options(test_modelfile PRIVATE -Wl,--wrap=malloc -Wl,--wrap=calloc)

lingua_test(test_modelfile_tokenizer ${CMAKE_CURRENT_LIST_DIR}/test_modelfile_tokenizer.c
  ${CMAKE_SOURCE_DIR}/tests/support/gguf_bytes.c LIBS lingua_model)
target_include_directories(test_modelfile_tokenizer PRIVATE ${CMAKE_SOURCE_DIR}/tests)
