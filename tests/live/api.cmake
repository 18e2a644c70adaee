# The HTTP API of real heads, asked by the real openai client and by hand (tests/live/api), one file for
# each claim. Each starts its own; ports are whichever are free. LINGUA_VOCABS (a folder of real
# vocabularies) and LINGUA_CHAT_MODEL (a chat model) make two more of them run.
find_program(LINGUA_NODE node)
if(NOT LINGUA_SANITIZE)
  foreach(area text chat vectors status timeline refusals doors sockets loss vocabs sense page)
    if(LINGUA_NODE)
      add_test(NAME live_api_${area} COMMAND ${LINGUA_NODE} ${CMAKE_SOURCE_DIR}/tests/live/api/${area}.mjs)
    else()
      add_test(NAME live_api_${area} COMMAND sh -c "echo SKIPPED: there is no node; exit 77")
    endif()
    set_tests_properties(live_api_${area} PROPERTIES SKIP_RETURN_CODE 77 PROCESSORS 2 TIMEOUT 300
      ENVIRONMENT "LINGUA_PROGRAM=$<TARGET_FILE:lingua>;LINGUA_TEST_DIR=${CMAKE_BINARY_DIR}/live-api")
    lingua_test_needs_model(live_api_${area})
  endforeach()
endif()
