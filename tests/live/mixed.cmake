# An arm64 device in an x86-64 head's cluster; skipped until `make join-only-arm64` has made one.
if(NOT LINGUA_SANITIZE) # whose programs need more memory than the head is allowed
  add_test(NAME live_mixed COMMAND bash ${CMAKE_SOURCE_DIR}/tests/live/mixed.sh $<TARGET_FILE:lingua>
    ${CMAKE_SOURCE_DIR}/build/arm64/lingua)
  set_tests_properties(live_mixed PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 400)
  lingua_test_needs_model(live_mixed)
endif()
