foreach(name text sampler chat)
  lingua_test(test_${name} ${CMAKE_SOURCE_DIR}/tests/unit/test_${name}.c ${CMAKE_SOURCE_DIR}/tests/support/open_text.c
    ${CMAKE_SOURCE_DIR}/tests/support/tiny_vocab.c LIBS lingua_text PkgConfig::JANSSON)
  target_include_directories(test_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
endforeach()
lingua_test_needs_model(test_sampler)
