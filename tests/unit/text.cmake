lingua_test(test_text ${CMAKE_SOURCE_DIR}/tests/unit/test_text.c ${CMAKE_SOURCE_DIR}/tests/support/tiny_vocab.c
  LIBS lingua_text)
target_include_directories(test_text PRIVATE ${CMAKE_SOURCE_DIR}/tests)
