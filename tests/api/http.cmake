# http.c alone: it knows nothing of models, so the rest of the layer stays out.
set(api_http http http_who http_answer http_tls session error)
list(TRANSFORM api_http PREPEND ${CMAKE_SOURCE_DIR}/src/api/)
list(TRANSFORM api_http APPEND .c)
lingua_test(test_http ${CMAKE_SOURCE_DIR}/tests/api/test_http.c ${CMAKE_SOURCE_DIR}/tests/api/client.c ${api_http}
  LIBS lingua_link PkgConfig::JANSSON)
target_include_directories(test_http PRIVATE ${CMAKE_SOURCE_DIR}/tests)
lingua_test(test_api_session ${CMAKE_SOURCE_DIR}/tests/api/test_api_session.c ${CMAKE_SOURCE_DIR}/src/api/session.c LIBS lingua_link)
