# The program as a person meets it, with the default model.
add_test(NAME live_cli COMMAND bash ${CMAKE_SOURCE_DIR}/tests/live/cli.sh $<TARGET_FILE:lingua>)
set_tests_properties(live_cli PROPERTIES FIXTURES_REQUIRED default_model TIMEOUT 600
  ENVIRONMENT "LINGUA_MODELS=${CMAKE_BINARY_DIR}/models")

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64|AMD64" AND NOT LINGUA_SANITIZE)
  add_test(NAME live_cpu COMMAND ${CMAKE_SOURCE_DIR}/tests/live/cpu.sh $<TARGET_FILE:lingua>)
  set_tests_properties(live_cpu PROPERTIES SKIP_RETURN_CODE 77)
endif()
