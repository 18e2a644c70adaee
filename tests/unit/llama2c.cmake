lingua_test(test_llama2c ${CMAKE_SOURCE_DIR}/tests/unit/test_llama2c.c LIBS lingua_model)

# The default model itself, fetched once for all tests that ask for it (lingua_test_needs_model).
# The conversion is deterministic, so its result is known to the byte.
add_test(NAME default_model COMMAND ${CMAKE_SOURCE_DIR}/tests/unit/default_model.sh
  $<TARGET_FILE:lingua-default-model> ${LINGUA_TEST_MODELS}
  26de240f4a6133372c2d9bd3f3c2cac56245a7e24c048cff89778494a2d8875e
  de9f597e13d5eb0db0d1758d351ae782c1e26e93ce2eb07c6616b0646534f68e)
set_tests_properties(default_model PROPERTIES FIXTURES_SETUP default_model TIMEOUT 900)

add_test(NAME default_model_trouble COMMAND ${CMAKE_SOURCE_DIR}/tests/unit/default_model_trouble.sh
  $<TARGET_FILE:lingua-default-model>)
